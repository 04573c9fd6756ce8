//! The table: for which call, which status and which words of Vault, which code and advice.

use super::Call;
use super::advice::*;
use crate::error::Code;

/// The calls that a rule is about.
#[derive(Clone, Copy)]
pub(super) enum On {
    Any,
    Login,
    Renew,
    Sign,
    Kv,
}

impl On {
    pub(super) fn matches(self, call: &Call<'_>) -> bool {
        match self {
            On::Any => true,
            On::Login => matches!(call, Call::Login { .. }),
            On::Renew => matches!(call, Call::Renew),
            On::Sign => matches!(call, Call::Sign { .. }),
            On::Kv => matches!(call, Call::KvRead { .. } | Call::KvCreate { .. }),
        }
    }
}

/// One line of the table; zero matches any status, the empty text any text.
pub(super) struct Rule(
    pub(super) On,
    pub(super) u16,
    pub(super) &'static str,
    pub(super) Code,
    pub(super) Advice,
);

pub(super) type Advice = fn(&Call<'_>) -> Option<String>;

/// The first line that matches decides. Texts are those of vault-1.21.0 on the wire.
#[rustfmt::skip] // One rule a line: it is read as a table.
pub(super) const TABLE: &[Rule] = &[
    // Load, at Vault or at AWS behind it. First, because AWS puts its words into other errors.
    Rule(On::Any, 429, "", Code::VaultThrottled, nothing),
    Rule(On::Any, 0, "RequestLimitExceeded", Code::VaultThrottled, nothing),
    Rule(On::Any, 0, "Throttling", Code::VaultThrottled, nothing),
    Rule(On::Any, 0, "Rate exceeded", Code::VaultThrottled, nothing),
    Rule(On::Renew, 502, "", Code::VaultThrottled, nothing),
    // The server.
    Rule(On::Any, 503, "Vault is sealed", Code::VaultSealed, unseal),
    Rule(On::Any, 0, "Vault is not initialized", Code::VaultSealed, unseal),
    // The access list of the ec2 log-in.
    Rule(On::Login, 400, "client nonce mismatch", Code::NonceMismatch, foreign_nonce),
    Rule(On::Login, 400, "reauthentication is disabled", Code::ReauthenticationDisabled, locked),
    Rule(On::Login, 400, "instance meta-data is older", Code::DocumentOutdated, outdated),
    Rule(On::Login, 400, "parsing time", Code::LoginRefused, poisoned),
    // EC2's answer about the instance. Some of it passes by itself: a fresh instance is pending
    // for seconds and unknown to some of EC2's servers for longer.
    Rule(On::Login, 400, "not in 'running' state", Code::VaultFailing, nothing),
    Rule(On::Login, 400, "InvalidInstanceID.NotFound", Code::VaultFailing, wrong_region),
    Rule(On::Login, 400, "no STS configuration found", Code::LoginRefused, account),
    Rule(On::Login, 400, "UnauthorizedOperation", Code::LoginRefused, vaults_rights),
    Rule(On::Login, 400, "AccessDenied", Code::LoginRefused, vaults_rights),
    Rule(On::Login, 400, "AuthFailure", Code::LoginRefused, vaults_rights),
    Rule(On::Login, 400, "failed to verify instance ID", Code::VaultFailing, nothing),
    // The role.
    Rule(On::Login, 400, "entry for role", Code::LoginRefused, make_login_role),
    Rule(On::Login, 400, "auth method ec2 not allowed", Code::LoginRefused, make_login_role),
    Rule(On::Login, 400, "Error validating instance", Code::LoginRefused, widen_login_role),
    Rule(On::Login, 400, "does not satisfy the constraint", Code::LoginRefused, widen_login_role),
    Rule(On::Login, 500, "IAM instance profile", Code::LoginRefused, widen_login_role),
    Rule(On::Login, 500, "missing tag with key", Code::LoginRefused, widen_login_role),
    Rule(On::Login, 403, "", Code::LoginRefused, no_login_mount),
    // The signature of the document, a 500 each.
    Rule(On::Login, 500, "signer", Code::LoginRefused, document_signer),
    Rule(On::Login, 500, "Message digest mismatch", Code::LoginRefused, document_signer),
    Rule(On::Login, 500, "verification", Code::LoginRefused, document_signer),
    Rule(On::Login, 500, "unsupported algorithm", Code::LoginRefused, document_signer),
    Rule(On::Login, 500, "failed to decode the PEM", Code::LoginRefused, document_signer),
    Rule(On::Login, 500, "failed to parse the BER", Code::LoginRefused, document_signer),
    // The token.
    Rule(On::Any, 403, "invalid token", Code::TokenInvalid, nothing),
    Rule(On::Any, 403, "bad token", Code::TokenInvalid, nothing),
    Rule(On::Any, 403, "", Code::PolicyDenied, policy),
    Rule(On::Renew, 400, "not renewable", Code::TokenNotRenewable, nothing),
    Rule(On::Renew, 400, "batch tokens cannot be renewed", Code::TokenNotRenewable, nothing),
    Rule(On::Renew, 0, "past the max TTL", Code::TokenNotRenewable, nothing),
    // Renewing asks EC2 again: trouble on the way there passes, its no does not.
    Rule(On::Renew, 500, "RequestError", Code::VaultFailing, nothing),
    Rule(On::Renew, 500, "RequestCanceled", Code::VaultFailing, nothing),
    Rule(On::Renew, 500, "InternalError", Code::VaultFailing, nothing),
    Rule(On::Renew, 500, "Unavailable", Code::VaultFailing, nothing),
    Rule(On::Renew, 500, "failed to renew entry", Code::TokenNotRenewable, nothing),
    Rule(On::Renew, 400, "", Code::TokenNotRenewable, nothing),
    // The certificate.
    Rule(On::Sign, 400, "beyond the expiration of the CA", Code::AuthorityEnding, authority),
    Rule(On::Sign, 400, "unknown role", Code::RoleRefused, make_pki_role),
    Rule(On::Sign, 400, "", Code::RoleRefused, widen_pki_role),
    Rule(On::Sign, 404, "", Code::RoleRefused, no_pki_mount),
    Rule(On::Sign, 405, "", Code::RoleRefused, no_pki_mount),
    // The secrets of the cluster.
    Rule(On::Kv, 404, "", Code::PolicyDenied, no_kv_mount),
    Rule(On::Kv, 405, "", Code::PolicyDenied, no_kv_mount),
    // What else is said to a log-in is said about it.
    Rule(On::Login, 400, "", Code::LoginRefused, nothing),
    Rule(On::Login, 404, "", Code::LoginRefused, no_login_mount),
    Rule(On::Login, 405, "", Code::LoginRefused, no_login_mount),
];
