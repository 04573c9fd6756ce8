//! The log-in of the ec2 method in the form that takes a `pkcs7`. A file of its own because the
//! code that the derive makes wants the standard `Result`.

use rustify_derive::Endpoint;

/// `POST auth/<mount>/login` with these three fields and none beside them. It holds secrets, so
/// it has no `Debug`.
#[derive(Endpoint)]
#[endpoint(path = "auth/{self.mount}/login", method = "POST")]
pub(super) struct Ec2Login {
    #[endpoint(skip)]
    pub(super) mount: String,
    pub(super) role: String,
    pub(super) pkcs7: String,
    pub(super) nonce: String,
}
