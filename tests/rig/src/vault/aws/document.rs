//! The signed instance identity document: as PKCS#7 (what `/rsa2048` serves), or as the document
//! and its detached RSA signature. Every refusal of a signature is a 500, as measured.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use serde_json::Value;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::super::answer::Refusal;
use super::super::der::{self, Body, Node};
use super::{Aws, Signer};

/// What is read of a document.
#[derive(Debug, Clone)]
pub(super) struct Document {
    pub(super) instance_id: String,
    pub(super) account_id: String,
    pub(super) region: String,
    pub(super) image_id: String,
    pub(super) pending_time: String,
}

/// Takes a signing certificate as base64 of PEM, or as PEM.
pub(super) fn signer(kind: &str, text: &str) -> Result<Signer, Refusal> {
    if !matches!(kind, "pkcs7" | "identity") {
        return Err(Refusal::bad(format!("invalid certificate type {kind:?}")));
    }
    if text.is_empty() {
        return Err(Refusal::bad("missing aws_public_cert"));
    }
    let decoded = STANDARD.decode(text.trim()).ok().and_then(|raw| String::from_utf8(raw).ok());
    let pem = decoded.unwrap_or_else(|| text.to_owned());
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes())
        .map_err(|_| Refusal::bad("invalid aws_public_cert. failed to decode PEM certificate"))?;
    X509Certificate::from_der(&block.contents)
        .map_err(|_| Refusal::bad("invalid aws_public_cert. failed to decode certificate"))?;
    Ok(Signer { kind: kind.to_owned(), pem, der: block.contents })
}

impl Aws {
    /// The document of a PKCS#7 message whose signer is registered.
    pub(super) fn open_pkcs7(&self, text: &str) -> Result<Document, Refusal> {
        // The PEM decoder between the server's own BEGIN and END lines ignores blanks.
        let letters: String = text.chars().filter(|letter| !letter.is_ascii_whitespace()).collect();
        let ber = STANDARD
            .decode(letters)
            .map_err(|_| Refusal::new(500, "failed to decode the PEM encoded PKCS#7 signature"))?;
        let unreadable = |why: &str| {
            let text = format!("failed to parse the BER encoded PKCS#7 signature: {why}");
            Refusal::new(500, text)
        };
        let root = der::parse(&ber)
            .ok_or_else(|| unreadable("ber2der: BER tag length is more than available data"))?;
        let message = Message::read(&root).ok_or_else(|| unreadable("asn1: structure error"))?;
        message.verify(&self.certificates.values().collect::<Vec<_>>())?;
        if message.content.is_empty() {
            let text = "instance identity document could not be found in the signature";
            return Err(Refusal::new(500, text));
        }
        parse_document(&message.content)
    }

    /// The document that came beside its signature.
    pub(super) fn open_identity(&self, document: &[u8], sig: &[u8]) -> Result<Document, Refusal> {
        let signers = self.certificates.values().filter(|signer| signer.kind == "identity");
        let good =
            signers.into_iter().any(|signer| verify(signer, RSA_SHA256, document, sig).is_ok());
        if !good {
            let text = "instance identity verification using SHA256 RSA signature is unsuccessful";
            return Err(Refusal::new(500, text));
        }
        parse_document(document)
    }
}

/// The base64 of a document.
pub(super) fn decode_identity(text: &str) -> Result<Vec<u8>, Refusal> {
    decode(text, "instance identity document")
}

/// The base64 of its detached signature.
pub(super) fn decode_signature(text: &str) -> Result<Vec<u8>, Refusal> {
    decode(text, "SHA256 RSA signature of the instance identity document")
}

fn decode(text: &str, what: &str) -> Result<Vec<u8>, Refusal> {
    let letters: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD
        .decode(letters)
        .map_err(|_| Refusal::bad(format!("failed to base64 decode the {what}")))
}

fn parse_document(raw: &[u8]) -> Result<Document, Refusal> {
    let value: Value = serde_json::from_slice(raw)
        .map_err(|_| Refusal::new(500, "invalid character in the instance identity document"))?;
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
    Ok(Document {
        instance_id: text("instanceId"),
        account_id: text("accountId"),
        region: text("region"),
        image_id: text("imageId"),
        pending_time: text("pendingTime"),
    })
}

/// The parts of a SignedData message with one signer.
struct Message {
    content: Vec<u8>,
    issuer: Vec<u8>,
    serial: Vec<u8>,
    digest: Vec<u8>,
    attributes: Option<Node>,
    signature: Vec<u8>,
}

const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04];
const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];

impl Message {
    fn read(root: &Node) -> Option<Message> {
        let signed = root.children().get(1)?.children().first()?;
        let parts = signed.children();
        let content = parts.get(2)?.children().get(1).and_then(|wrap| wrap.children().first());
        let signers = parts.last().filter(|last| last.tag == der::SET)?;
        let signer = signers.children().first()?.children();
        let [_, sid, digest, rest @ ..] = signer else {
            return None;
        };
        let (attributes, rest) = match rest {
            [first, rest @ ..] if first.tag == 0xa0 => (Some(first.clone()), rest),
            rest => (None, rest),
        };
        let signature = rest.iter().find(|node| node.tag & 0x1f == der::OCTETS)?.bytes();
        Some(Message {
            content: content.map(Node::bytes).unwrap_or_default(),
            issuer: sid.children().first()?.encode(),
            serial: sid.children().get(1)?.bytes(),
            digest: digest.children().iter().find(|node| node.tag == der::OID)?.bytes(),
            attributes,
            signature,
        })
    }

    fn verify(&self, signers: &[&Signer]) -> Result<(), Refusal> {
        let failed =
            |why: &str| Refusal::new(500, format!("failed to verify the signature: {why}"));
        let rsa = match self.digest.as_slice() {
            SHA1 => RSA_SHA1,
            SHA256 => RSA_SHA256,
            _ => return Err(failed("pkcs7: unsupported algorithm")),
        };
        let signed = match &self.attributes {
            None => self.content.clone(),
            Some(attributes) => {
                let hashed = hash(&self.digest, &self.content);
                let stated = message_digest(attributes).unwrap_or_default();
                if stated != hashed {
                    return Err(failed(&mismatch(&self.digest, &stated, &hashed)));
                }
                // The signature covers the attributes as a SET, whatever tag carried them.
                Node { tag: der::SET, body: Body::Constructed(attributes.children().to_vec()) }
                    .encode()
            }
        };
        let signer = signers
            .iter()
            .find(|signer| self.is_by(signer))
            .ok_or_else(|| failed("pkcs7: No certificate for signer"))?;
        verify(signer, rsa, &signed, &self.signature)
            .map_err(|()| failed("crypto/rsa: verification error"))
    }

    fn is_by(&self, signer: &Signer) -> bool {
        X509Certificate::from_der(&signer.der).is_ok_and(|(_, certificate)| {
            certificate.issuer().as_raw() == self.issuer && certificate.raw_serial() == self.serial
        })
    }
}

fn mismatch(algorithm: &[u8], stated: &[u8], hashed: &[u8]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02X}")).collect::<String>();
    let name = if algorithm == SHA1 { "1.3.14.3.2.26" } else { "2.16.840.1.101.3.4.2.1" };
    format!(
        "pkcs7: Message digest mismatch for algo: {name}\n\tExpected: {}\n\tActual: {}",
        hex(stated),
        hex(hashed)
    )
}

fn hash(algorithm: &[u8], content: &[u8]) -> Vec<u8> {
    let algorithm = if algorithm == SHA1 {
        &ring::digest::SHA1_FOR_LEGACY_USE_ONLY
    } else {
        &ring::digest::SHA256
    };
    ring::digest::digest(algorithm, content).as_ref().to_vec()
}

fn message_digest(attributes: &Node) -> Option<Vec<u8>> {
    let attribute = attributes.children().iter().find(|attribute| {
        attribute.children().first().is_some_and(|oid| oid.bytes() == MESSAGE_DIGEST)
    })?;
    Some(attribute.children().get(1)?.children().first()?.bytes())
}

const RSA_SHA1: &dyn VerificationAlgorithm =
    &signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY;
const RSA_SHA256: &dyn VerificationAlgorithm =
    &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY;

fn verify(
    signer: &Signer,
    algorithm: &'static dyn VerificationAlgorithm,
    message: &[u8],
    sig: &[u8],
) -> Result<(), ()> {
    let (_, certificate) = X509Certificate::from_der(&signer.der).map_err(|_| ())?;
    let key = &certificate.public_key().subject_public_key.data;
    UnparsedPublicKey::new(algorithm, key).verify(message, sig).map_err(|_| ())
}
