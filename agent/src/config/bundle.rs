//! What the configuration has to know of a bundle of authorities: that it is one, and its end.

use jiff::Timestamp;

use crate::error::said;

/// The end of the authority in a bundle that lasts longest; an error says what is wrong.
pub fn last_end(pem: &[u8]) -> Result<Timestamp, String> {
    let mut latest = None;
    for (index, block) in x509_parser::pem::Pem::iter_from_buffer(pem).enumerate() {
        let block =
            block.map_err(|error| format!("block {} is no PEM: {}", index + 1, said(&error)))?;
        let certificate = block
            .parse_x509()
            .map_err(|error| format!("block {} is no certificate: {}", index + 1, said(&error)))?;
        if !certificate.is_ca() {
            return Err(format!(
                "block {} is no CA certificate: {}",
                index + 1,
                said(certificate.subject())
            ));
        }
        let end = certificate.validity().not_after.timestamp();
        let end = Timestamp::from_second(end).map_err(|error| error.to_string())?;
        latest = latest.max(Some(end));
    }
    latest.ok_or_else(|| "there is no certificate in it; put the CA's PEM there".to_string())
}
