//! A certificate and its key as a component reads them: two files by two paths, one after the
//! other, with all that may go wrong between them.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A PEM file above this is none.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// Why a pair was not loaded.
#[derive(Debug)]
pub(super) enum LoadError {
    /// A file is not there.
    Missing(String),
    /// The key is not the certificate's.
    Mismatch(String),
    /// Anything else.
    Unreadable(String),
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Missing(text) | Self::Mismatch(text) | Self::Unreadable(text)) = self;
        f.write_str(text)
    }
}

/// A pair that fits, and the files it came from, held open: their link count tells when they were
/// unlinked, whatever is at their paths by then.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) key: Arc<CertifiedKey>,
    files: [File; 2],
}

impl Pair {
    /// Opens `cert.pem` and then `key.pem` through the directory's path each time, as Go's
    /// `tls.LoadX509KeyPair` does.
    pub(super) fn load(directory: &Path) -> Result<Self, LoadError> {
        let (cert_file, cert) = read(&directory.join("cert.pem"))?;
        let (key_file, key) = read(&directory.join("key.pem"))?;
        let key = Arc::new(certified(&cert, &key)?);
        Ok(Self { key, files: [cert_file, key_file] })
    }

    /// Whether one of the files has no name any more: a hard link elsewhere keeps it named, and
    /// keeps an inode's watch silent.
    pub(super) fn is_unlinked(&self) -> bool {
        self.files.iter().any(|file| file.metadata().is_ok_and(|metadata| metadata.nlink() == 0))
    }
}

/// The pair of two PEM texts, checked to fit.
pub(super) fn certified(cert: &[u8], key: &[u8]) -> Result<CertifiedKey, LoadError> {
    let unreadable = |text: String| LoadError::Unreadable(text);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(cert)
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(format!("cert.pem: {error}")))?;
    if chain.is_empty() {
        return Err(unreadable("cert.pem: no certificate in it".into()));
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| unreadable(format!("key.pem: {error}")))?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => LoadError::Mismatch(error.to_string()),
        _ => unreadable(error.to_string()),
    })
}

fn read(path: &Path) -> Result<(File, Vec<u8>), LoadError> {
    let failed = |error: std::io::Error| {
        let text = format!("{}: {error}", path.display());
        match error.kind() {
            ErrorKind::NotFound => LoadError::Missing(text),
            _ => LoadError::Unreadable(text),
        }
    };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    (&file).take(FILE_LIMIT_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok((file, bytes))
}
