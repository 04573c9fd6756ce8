//! The table against the texts that a real Vault 1.21.0 was seen to send.

use super::*;
use crate::error::Kind;
use crate::secret::Secret;

const LOGIN: Call<'_> = Call::Login { mount: "aws-ec2", role: "worker", instance: "i-0aaa" };
const SIGN: Call<'_> = Call::Sign { mount: "pki-etcd", role: "server" };

fn json(status: u16, text: &str) -> Reply {
    Reply {
        status,
        content_type: "application/json".into(),
        retry_after: None,
        location: None,
        body: serde_json::json!({ "errors": [text] }).to_string().into_bytes(),
    }
}

fn raw(status: u16, content_type: &str, body: &str) -> Reply {
    Reply {
        status,
        content_type: content_type.into(),
        retry_after: None,
        location: None,
        body: body.as_bytes().to_vec(),
    }
}

fn check(call: &Call<'_>, table: &[(u16, &str, Code)]) {
    for (status, text, code) in table {
        let error = sort(call, &json(*status, text));
        assert_eq!(error.code(), *code, "{call:?} {status} {text}");
    }
}

#[test]
fn n12_what_a_log_in_is_told() {
    check(&LOGIN, LOGIN_TEXTS);
}

const LOGIN_TEXTS: &[(u16, &str, Code)] = &[
    (400, "client nonce mismatch", Code::NonceMismatch),
    (400, "client nonce mismatch and instance meta-data incorrect", Code::NonceMismatch),
    (400, "reauthentication is disabled", Code::ReauthenticationDisabled),
    (
        400,
        "instance meta-data is older than the one used for previous login",
        Code::DocumentOutdated,
    ),
    (400, "client nonce exceeding the limit of 128 characters", Code::LoginRefused),
    (400, "parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\"", Code::LoginRefused),
    (400, "entry for role \"worker\" not found", Code::LoginRefused),
    (400, "auth method ec2 not allowed for role worker", Code::LoginRefused),
    (
        400,
        "Error validating instance: AMI ID \"a\" does not belong to role \"r\"",
        Code::LoginRefused,
    ),
    (400, "Region \"x\" does not satisfy the constraint on role \"r\"", Code::LoginRefused),
    (500, "IAM instance profile in the instance description is nil", Code::LoginRefused),
    (500, "missing tag with key \"VaultRole\"", Code::LoginRefused),
    (403, "permission denied", Code::LoginRefused),
    (405, "unsupported operation", Code::LoginRefused),
    (400, "failed to verify instance ID: instance is not in 'running' state", Code::VaultFailing),
    (
        400,
        "failed to verify instance ID: error fetching description for instance ID \"i-0aaa\": \
         InvalidInstanceID.NotFound: The instance ID 'i-0aaa' does not exist status code: 400",
        Code::VaultFailing,
    ),
    (
        400,
        "failed to verify instance ID: no STS configuration found for account ID \"210\"",
        Code::LoginRefused,
    ),
    (
        400,
        "failed to verify instance ID: RequestLimitExceeded: Request limit exceeded.\n\tstatus \
         code: 503",
        Code::VaultThrottled,
    ),
    (
        400,
        "failed to verify instance ID: UnauthorizedOperation: You are not authorized\n\tstatus",
        Code::LoginRefused,
    ),
    (
        400,
        "failed to verify instance ID: RequestCanceled: request context canceled",
        Code::VaultFailing,
    ),
    (
        400,
        "failed to verify instance ID: unable to fetch current caller: RequestError: send",
        Code::VaultFailing,
    ),
    (
        500,
        "instance identity verification using SHA256 RSA signature is unsuccessful",
        Code::LoginRefused,
    ),
    (500, "No certificate for signer", Code::LoginRefused),
    (500, "Message has no signers", Code::LoginRefused),
    (500, "Message digest mismatch\n\tExpected: 00", Code::LoginRefused),
    (500, "crypto/rsa: verification error", Code::LoginRefused),
    (500, "unsupported algorithm \"2.16.840.1.101.3.4.3.2\"", Code::LoginRefused),
    (500, "failed to decode the PEM encoded PKCS#7 signature", Code::LoginRefused),
    (500, "failed to parse the BER encoded PKCS#7 signature: x", Code::LoginRefused),
    (500, "internal error", Code::VaultFailing),
    (503, "Vault is sealed", Code::VaultSealed),
    (429, "request path \"auth/aws/login\": rate limit quota exceeded", Code::VaultThrottled),
];

const NO_TOKEN: &str = "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n";
const NO_POLICY: &str = "1 error occurred:\n\t* permission denied\n\n";

#[test]
fn what_a_token_is_told() {
    for call in [Call::Lookup, Call::Renew, Call::Revoke, SIGN] {
        check(
            &call,
            &[
                (403, NO_TOKEN, Code::TokenInvalid),
                (403, NO_POLICY, Code::PolicyDenied),
                (403, "permission denied", Code::PolicyDenied),
                (503, "Vault is sealed", Code::VaultSealed),
                (
                    500,
                    "local node not active but active cluster node not found",
                    Code::VaultFailing,
                ),
                (
                    502,
                    "bad gateway",
                    if matches!(call, Call::Renew) {
                        Code::VaultThrottled
                    } else {
                        Code::VaultFailing
                    },
                ),
            ],
        );
    }
    check(
        &Call::Renew,
        &[
            (400, "lease is not renewable", Code::TokenNotRenewable),
            (400, "batch tokens cannot be renewed", Code::TokenNotRenewable),
            (
                500,
                "1 error occurred:\n\t* failed to renew entry: instance is not in 'running' \
                 state\n\n",
                Code::TokenNotRenewable,
            ),
            (
                500,
                "1 error occurred:\n\t* failed to renew entry: RequestError: send request \
                 failed\ncaused by: Post \"http://x\": connection refused\n\n",
                Code::VaultFailing,
            ),
            (
                502,
                "1 error occurred:\n\t* failed to renew entry: RequestLimitExceeded: x\n\n",
                Code::VaultThrottled,
            ),
            (500, "internal error", Code::VaultFailing),
        ],
    );
}

#[test]
fn what_a_certificate_request_is_told() {
    check(
        &SIGN,
        &[
            (
                400,
                "cannot satisfy request, as TTL would result in notAfter of \
                 2026-11-22T12:00:00Z that is beyond the expiration of the CA certificate at \
                 2026-11-21T12:30:00Z",
                Code::AuthorityEnding,
            ),
            (400, "unknown role: server", Code::RoleRefused),
            (400, "common name system:masters not allowed by this role", Code::RoleRefused),
            (400, "subject alternate name x not allowed by this role", Code::RoleRefused),
            (
                400,
                "IP Subject Alternative Names are not allowed in this role, but was provided \
                 some via CSR",
                Code::RoleRefused,
            ),
            (400, "role requires keys of type ec", Code::RoleRefused),
            (
                404,
                "no handler for route \"pki-etcd/sign/server\". route entry not found.",
                Code::RoleRefused,
            ),
            (405, "unsupported operation", Code::RoleRefused),
            (500, "1 error occurred:\n\t* internal error\n\n", Code::VaultFailing),
        ],
    );
}

#[test]
fn what_the_secrets_of_a_cluster_are_told() {
    let (mount, path) = ("kv", "cluster");
    let (read, create) = (Call::KvRead { mount, path }, Call::KvCreate { mount, path });
    let no_route = "no handler for route \"kv/data/cluster\". route entry not found.";
    for call in [read, create] {
        let table = [
            (403, NO_TOKEN, Code::TokenInvalid),
            (403, NO_POLICY, Code::PolicyDenied),
            (404, no_route, Code::PolicyDenied),
            (405, "unsupported operation", Code::PolicyDenied),
            (400, "Upgrading from non-versioned to versioned data.", Code::VaultFailing),
            (503, "Vault is sealed", Code::VaultSealed),
        ];
        check(&call, &table);
        let error = sort(&call, &json(404, no_route));
        assert!(error.advice().expect("advice").contains("kv/ a kv mount of version 2"));
    }
    let late = json(400, "check-and-set parameter did not match the current version");
    assert!(was_late(&late));
    assert!(!was_late(&json(400, "check-and-set parameter required for this call")));
    assert!(!was_late(&raw(400, "text/html", "check-and-set parameter did not match the")));
}

#[test]
fn what_is_no_answer_of_vault_is_never_a_no() {
    for status in [200, 400, 401, 403, 404, 500, 502, 503] {
        for (content_type, body) in [
            ("text/html", "<html>client nonce mismatch</html>"),
            ("application/json", "{\"message\":\"permission denied\"}"),
            ("", ""),
        ] {
            let reply = raw(status, content_type, body);
            let error = sort(&LOGIN, &reply);
            assert_eq!(error.code(), Code::VaultFailing, "{status} {content_type}");
            assert!(
                !reply.is_vaults()
                    && (status != 200 || content_type != "text/html" || !reply.is_success())
            );
        }
    }
    let error = sort(&LOGIN, &raw(429, "text/html", "slow down"));
    assert_eq!(error.code(), Code::VaultThrottled);
    let text = "Client sent an HTTP request to an HTTPS server.\n";
    let error = sort(&LOGIN, &raw(400, "text/plain; charset=utf-8", text));
    assert!(error.advice().expect("advice").contains("https://"));
}

#[test]
fn a_redirect_that_is_not_followed_is_named_without_its_query() {
    let mut reply = raw(307, "", "");
    reply.location = Some("http://vault-2:8200/v1/x?token=1".into());
    let error = sort(&Call::Lookup, &reply);
    assert_eq!(format!("{error:#}"), "307 redirect to http://vault-2:8200/v1/x");
    assert_eq!(error.kind(), Kind::Unavailable);
}

#[test]
fn retry_after_is_kept() {
    let mut reply = json(429, "rate limit quota exceeded");
    reply.retry_after = Some(10);
    assert_eq!(sort(&SIGN, &reply).wait(), Some(Duration::from_secs(10)));
}

#[test]
fn texts_are_one_short_line_without_tokens() {
    let error = sort(&Call::Renew, &json(403, NO_TOKEN));
    assert_eq!(format!("{error:#}"), "403 permission denied, invalid token");
    let token = format!("hvs.{}", "A".repeat(90));
    let text = format!("a\r\n\u{1b}[31mb {token} \"{token}\" {}", "x ".repeat(400));
    let told = format!("{:#}", sort(&SIGN, &json(400, &text)));
    assert!(told.starts_with("400 a [31mb *** *** x x"), "{told}");
    assert!(told.chars().count() < 310 && !told.contains('\n'), "{told}");
}

#[test]
fn what_was_sent_is_not_shown_though_an_answer_quotes_it() {
    let nonce = Secret::new("7d0ad2f4-4c4f-4a7e-9a4b-5c3f1f2e6b11".into());
    let reply = json(400, &format!("no such nonce: \"{}\"", nonce.expose()));
    let told = format!("{:#}", sort(&LOGIN, &reply.clone().hiding(Some(&nonce))));
    assert!(told.contains("no such nonce: \"***\""), "{told}");
    assert_eq!(reply.clone().hiding(Some(&Secret::new(String::new()))).body, reply.body);
    assert_eq!(reply.clone().hiding(None).body, reply.body);
}

#[test]
fn an_administrator_is_told_the_exact_command() {
    let delete = "vault delete auth/aws-ec2/identity-accesslist/i-0aaa";
    for text in [
        "client nonce mismatch",
        "client nonce mismatch and instance meta-data incorrect",
        "reauthentication is disabled",
        "instance meta-data is older than the one used for previous login",
        "parsing time",
    ] {
        let error = sort(&LOGIN, &json(400, text));
        let advice = error.advice().expect("advice").to_owned();
        assert!(advice.contains(delete), "{text}: {advice}");
        assert_eq!(error.kind(), Kind::Denied, "{text}: no hammering");
    }
    for (call, status, text, wanted) in [
        (LOGIN, 400, "entry for role \"worker\" not found", "auth/aws-ec2/role/worker"),
        (SIGN, 403, NO_POLICY, "update on pki-etcd/sign/server"),
        (SIGN, 400, "common name x not allowed by this role", "vault read pki-etcd/roles/server"),
    ] {
        let error = sort(&call, &json(status, text));
        let advice = error.advice().expect("advice");
        assert!(advice.contains(wanted), "{advice}");
    }
}

#[test]
fn only_vaults_own_successes_are_successes() {
    assert!(raw(200, "application/json", "{}").is_success());
    assert!(raw(204, "", "").is_success());
    assert!(!raw(200, "text/html; charset=utf-8", "<html>").is_success());
    assert!(!raw(302, "application/json", "{}").is_success());
    assert!(raw(403, "application/json", "{\"errors\":[]}").is_vaults());
    assert!(!raw(200, "application/json", "{\"status\":\"ok\"}").is_vaults());
}
