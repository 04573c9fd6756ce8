//! What a mount hands out to anyone: its authority's certificate and chain, raw and as JSON, and
//! the certificates that it remembers.

use serde_json::{Value, json};

use super::super::answer::{Operation, Refusal, Reply};
use super::{Pki, Request};

const PEM: &str = "application/pem-certificate-chain";
const DER: &str = "application/pkix-cert";

impl Pki {
    pub(super) fn read(&self, request: &Request<'_>) -> Result<Reply, Refusal> {
        let segments: Vec<&str> = request.path.split('/').collect();
        match segments.as_slice() {
            ["ca", "pem"] => self.raw("default", PEM),
            // Vault serves PEM here although the type says otherwise.
            ["ca_chain"] => self.raw("default", DER),
            ["issuer", reference, "pem"] => self.raw(reference, PEM),
            ["ca"] => Ok(Reply::Raw(200, DER, self.find("default")?.der.clone())),
            ["issuer", reference, "json"] => {
                let issuer = self.find(reference)?;
                Ok(Reply::data(json!({
                    "ca_chain": [format!("{}\n", issuer.pem)],
                    "certificate": format!("{}\n", issuer.pem),
                    "issuer_id": issuer.id,
                    "issuer_name": issuer.name,
                })))
            }
            ["cert", "ca"] => self.authority().map(Reply::data),
            ["cert", "ca_chain"] => {
                let mut data = self.authority()?;
                data["ca_chain"] = data["certificate"].clone();
                Ok(Reply::data(data))
            }
            ["cert", serial] if !serial.is_empty() => Ok(self.certificate(serial)),
            ["issuers"] | ["issuers", ""] if request.operation == Operation::List => {
                Ok(self.issuers())
            }
            ["certs"] | ["certs", ""] if request.operation == Operation::List => {
                Ok(Reply::Keys(self.issued.keys().cloned().collect()))
            }
            _ => Err(Refusal::unsupported_path()),
        }
    }

    fn raw(&self, reference: &str, content_type: &'static str) -> Result<Reply, Refusal> {
        if self.issuers.is_empty() {
            return Ok(Reply::Raw(204, content_type, Vec::new()));
        }
        let pem = self.find(reference)?.pem.clone();
        Ok(Reply::Raw(200, content_type, pem.into_bytes()))
    }

    fn authority(&self) -> Result<Value, Refusal> {
        if self.issuers.is_empty() {
            return Err(Refusal::bad("no default issuer currently configured"));
        }
        Ok(json!({
            "certificate": self.find("default")?.pem,
            "revocation_time": 0,
            "revocation_time_rfc3339": "",
        }))
    }

    fn certificate(&self, serial: &str) -> Reply {
        let serial = serial.replace('-', ":").to_lowercase();
        let Some(issued) = self.issued.get(&serial) else {
            return Reply::Absent;
        };
        let (seconds, text) = match issued.revoked {
            Some(at) => (at.as_second(), at.to_string()),
            None => (0, String::new()),
        };
        Reply::data(json!({
            "certificate": format!("{}\n", issued.pem),
            "revocation_time": seconds,
            "revocation_time_rfc3339": text,
        }))
    }
}
