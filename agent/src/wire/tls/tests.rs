//! Asking real TLS servers which certificate they serve.

use std::net::SocketAddr;

use rig::pki::{Ca, Leaf};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const LONG: Duration = Duration::from_secs(20);

/// Serves one pair to everyone, without asking whether key and certificate belong together.
#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn pair(certificate: &Leaf, key: &Leaf) -> Arc<Fixed> {
    let certificate = CertificateDer::from_pem_slice(certificate.cert_pem.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(key.key_pem.as_bytes()).expect("a key");
    let key = any_supported_type(&key).expect("a key that can sign");
    let certificate = certificate.expect("a certificate");
    Arc::new(Fixed(Arc::new(CertifiedKey::new(vec![certificate], key))))
}

/// What a server demands of its clients.
enum Clients {
    Anyone,
    /// Of this root (PEM).
    WithCertificate(String),
}

/// A server of one TLS version that ends each connection after the handshake.
async fn server(
    version: &'static rustls::SupportedProtocolVersion,
    pair: Arc<Fixed>,
    clients: Clients,
) -> SocketAddr {
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .expect("a version of ring's");
    let builder = match clients {
        Clients::Anyone => builder.with_no_client_auth(),
        Clients::WithCertificate(root) => {
            let mut roots = rustls::RootCertStore::empty();
            let root = CertificateDer::from_pem_slice(root.as_bytes()).expect("a root");
            roots.add(root).expect("an anchor");
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
        }
    };
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_cert_resolver(pair)));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            acceptor.accept(stream).await.ok();
        }
    });
    address
}

fn leaf() -> (Leaf, String) {
    let leaf = Ca::new("rig").issue(&["127.0.0.1", "localhost"]);
    let der = CertificateDer::from_pem_slice(leaf.cert_pem.as_bytes()).expect("a certificate");
    let serial = read(&der).expect("readable").serial;
    (leaf, serial)
}

#[tokio::test]
async fn tells_what_is_served_whoever_signed_it_and_whomever_it_names() {
    for version in [&TLS12, &TLS13] {
        let (leaf, serial) = leaf();
        let address = server(version, pair(&leaf, &leaf), Clients::Anyone).await;
        for name in [None, Some("some.other.name")] {
            let served = served(&address.to_string(), name, LONG).await.expect("served");
            assert_eq!(served.serial, serial);
            assert_eq!(served.fingerprint_sha256.len(), 64);
        }
    }
}

#[tokio::test]
async fn a_server_that_wants_a_client_certificate_still_shows_its_own() {
    for version in [&TLS12, &TLS13] {
        let (leaf, serial) = leaf();
        let clients = Clients::WithCertificate(Ca::new("etcd peers").pem().to_owned());
        let address = server(version, pair(&leaf, &leaf), clients).await;
        let served = served(&address.to_string(), None, LONG).await.expect("served");
        assert_eq!(served.serial, serial);
    }
}

#[tokio::test]
async fn a_new_certificate_with_the_old_key_is_not_served() {
    for version in [&TLS12, &TLS13] {
        let (new, old) = (leaf().0, leaf().0);
        let address = server(version, pair(&new, &old), Clients::Anyone).await;
        let error = served(&address.to_string(), None, LONG).await.expect_err("a torn pair");
        assert_eq!(error.code(), Code::NotServed);
        assert!(format!("{error:#}").contains("does not prove"), "{error:#}");
    }
}

#[tokio::test]
async fn what_does_not_answer_in_tls_is_told_with_its_address() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = silent.local_addr().expect("its address").to_string();
    let error = served(&address, None, Duration::from_millis(200)).await.expect_err("silence");
    assert!(format!("{error:#}").contains("no certificate within 200ms"), "{error:#}");
    drop(silent);
    let error = served(&address, None, LONG).await.expect_err("refused");
    assert!(format!("{error:#}").ends_with(&format!("{address}: connection refused")), "{error:#}");

    let clear = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = clear.local_addr().expect("its address").to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = clear.accept().await {
            let greeting = b"220 mail.example ESMTP\r\n";
            tokio::io::AsyncWriteExt::write_all(&mut stream, greeting).await.ok();
            // A connection that is closed with something unread is reset, and the greeting is lost.
            tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await.ok();
        }
    });
    let error = served(&address, None, LONG).await.expect_err("no TLS");
    assert!(format!("{error:#}").contains("this port does not speak TLS"), "{error:#}");
}

#[test]
fn a_serial_looks_as_vault_prints_it() {
    for (bytes, text) in [
        (&[0x3a, 0xf1, 0x00, 0x0b][..], "3a:f1:00:0b"),
        (&[0x00, 0xf1, 0x02][..], "f1:02"),
        (&[0x00][..], ""),
    ] {
        assert_eq!(serial_text(bytes), text);
    }
}
