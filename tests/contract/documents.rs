//! The signed document on its way into a login: which forms pass, and how others are refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rig::aws::document::Signer;
use serde_json::{Value, json};

use crate::bench::{Auth, Ctx, Outcome, has, is, merge, ok, same};

const UNSIGNED: &str = "instance identity verification using SHA256 RSA signature is unsuccessful";

fn pair(document: &str, signature: &str) -> Value {
    json!({
        "role": "node", "nonce": "n",
        "identity": STANDARD.encode(document), "signature": signature,
    })
}

pub(crate) async fn identity_and_signature_are_accepted(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let document = auth.document(&auth.launch());
    let signature = Signer::shared().signature(document.as_bytes());
    ok(&auth.send(pair(&document, &signature)).await?)?;
    ok(&auth.send(pair(&document, &signature.replace('\n', ""))).await?)
}

pub(crate) async fn foreign_signature_is_refused(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let document = auth.document(&auth.launch());
    let signature = Signer::shared().signature(b"another document");
    is(&auth.send(pair(&document, &signature)).await?, 500, UNSIGNED)
}

pub(crate) async fn newline_breaks_the_signature(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let document = auth.document(&auth.launch());
    let signature = Signer::shared().signature(document.as_bytes());
    is(&auth.send(pair(&format!("{document}\n"), &signature)).await?, 500, UNSIGNED)
}

pub(crate) async fn both_forms_are_refused(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let document = auth.document(&auth.launch());
    let mut body = pair(&document, &Signer::shared().signature(document.as_bytes()));
    merge(&mut body, json!({ "pkcs7": auth.pkcs7(&document) }));
    has(&auth.send(body).await?, 400, "provide only one")
}

const NOTHING: &str = "didn't supply required authentication values";

pub(crate) async fn no_form_is_refused(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    is(&auth.send(json!({ "role": "node" })).await?, 400, NOTHING)?;
    is(&auth.send(json!({})).await?, 400, NOTHING)
}

pub(crate) async fn half_a_form_is_refused(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let document = auth.document(&auth.launch());
    let body = json!({ "role": "node", "identity": STANDARD.encode(&document) });
    is(&auth.send(body).await?, 400, NOTHING)?;
    let signature = Signer::shared().signature(document.as_bytes());
    is(&auth.send(json!({ "role": "node", "signature": signature })).await?, 400, NOTHING)
}

pub(crate) async fn extras_beside_pkcs7_are_ignored(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let id = auth.launch();
    let extra = json!({ "nonce": "n", "signature": "AAAA" });
    ok(&auth.login(&id, extra).await?)?;
    let odd = auth.login(&id, json!({ "nonce": "n", "signature": "x" })).await?;
    has(&odd, 400, "failed to base64 decode the SHA256 RSA signature")?;
    ok(&auth.login(&id, json!({ "nonce": "n", "iam_request_url": "x" })).await?)
}

async fn with_text(auth: &Auth<'_>, text: &str) -> Result<rig::setup::Reply, String> {
    auth.send(json!({ "role": "node", "nonce": "n", "pkcs7": text })).await
}

fn one_line(auth: &Auth<'_>) -> String {
    let id = auth.launch();
    auth.pkcs7(&auth.document(&id)).split_whitespace().collect()
}

pub(crate) async fn line_breaks_do_not_matter(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let line = one_line(&auth);
    ok(&with_text(&auth, &line).await?)?;
    let lines: Vec<&str> =
        line.as_bytes().chunks(76).map(|part| std::str::from_utf8(part).unwrap_or("")).collect();
    for glue in ["\n", "\r\n", " "] {
        ok(&with_text(&auth, &lines.join(glue)).await?)?;
    }
    ok(&with_text(&auth, &format!("  {line} \n")).await?)
}

pub(crate) async fn broken_base64_is_refused(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let line = one_line(&auth);
    let text = "failed to decode the PEM encoded PKCS#7 signature";
    let own = format!("-----BEGIN PKCS7-----\n{line}\n-----END PKCS7-----");
    has(&with_text(&auth, &own).await?, 500, text)?;
    let literal = format!("{}\\n{}", &line[..76], &line[76..]);
    has(&with_text(&auth, &literal).await?, 500, text)?;
    has(&with_text(&auth, &format!("{line}A")).await?, 500, text)
}

pub(crate) async fn truncated_message_is_refused(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let line = one_line(&auth);
    let half = &line[..line.len() / 8 * 4];
    let text = "failed to parse the BER encoded PKCS#7 signature";
    has(&with_text(&auth, half).await?, 500, text)
}

pub(crate) async fn unregistered_signer_is_refused(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    for kind in ["pkcs7", "identity"] {
        let path = auth.path(&format!("config/certificate/{kind}"));
        ctx.root().quiet().delete(&path).await?;
    }
    let line = one_line(&auth);
    has(&with_text(&auth, &line).await?, 500, "No certificate for signer")
}

/// Changes one byte behind a piece of the message's DER.
fn changed(line: &str, behind: &[u8]) -> Result<String, String> {
    let mut raw = STANDARD.decode(line).map_err(|error| error.to_string())?;
    let found = raw.windows(behind.len()).position(|part| part == behind);
    let at = found.ok_or("the message does not hold that piece")? + behind.len();
    let byte = raw.get_mut(at).ok_or("the message ends there")?;
    *byte ^= 1;
    Ok(STANDARD.encode(raw))
}

pub(crate) async fn altered_content_is_refused(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let line = changed(&one_line(&auth), b"\"instanceId\" : \"i-")
        .or_else(|_| changed(&one_line(&auth), b"instanceId\":\"i-"))?;
    let reply = auth.send(json!({ "role": "node", "nonce": "n", "pkcs7": line })).await?;
    has(&reply, 500, "Message digest mismatch")
}

pub(crate) async fn bad_signature_is_refused(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let line = one_line(&auth);
    let mut raw = STANDARD.decode(line).map_err(|error| error.to_string())?;
    let last = raw.len() - 20;
    raw[last] ^= 1;
    has(&with_text(&auth, &STANDARD.encode(raw)).await?, 500, "crypto/rsa: verification error")
}

pub(crate) async fn identity_must_be_base64(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let body = json!({ "role": "node", "identity": "{}", "signature": "AAAA" });
    has(&auth.send(body).await?, 400, "failed to base64 decode the")?;
    let body = json!({ "role": "node", "identity": "AAAA", "signature": "{}" });
    has(&auth.send(body).await?, 400, "failed to base64 decode the")
}

pub(crate) async fn good_signature_shows_without_an_entry(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let document = auth.document(&auth.launch());
    let reply = auth.login_with(&document, "no-such", json!({})).await?;
    is(&reply, 400, "entry for role \"no-such\" not found")?;
    let list = ctx.root().list(&auth.path("identity-accesslist")).await?;
    is(&list, 404, "")
}

pub(crate) async fn body_is_not_json(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let path = auth.path("login");
    let reply = ctx.anyone().call("POST", &path, Some("role=node".into())).await?;
    has(&reply, 400, "failed to parse JSON input: invalid character 'r'")?;
    for (body, text) in [
        ("{\"role\":", "malformed JSON, unclosed containers"),
        ("{\"role", "malformed JSON, unclosed string"),
    ] {
        is(&ctx.anyone().call("POST", &path, Some(body.into())).await?, 500, text)?;
    }
    has(&ctx.anyone().call("POST", &path, Some("[1]".into())).await?, 400, "unmarshal array")
}

pub(crate) async fn string_is_too_long(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let reply = auth.send(json!({ "role": "n".repeat((1 << 20) + 1) })).await?;
    has(&reply, 500, "JSON string value exceeds allowed length")
}

pub(crate) async fn get_is_not_a_login(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    has(&ctx.anyone().read(&auth.path("login")).await?, 405, "unsupported operation")
}

pub(crate) async fn unknown_mount_wants_a_token(ctx: &Ctx) -> Outcome {
    let reply = ctx.anyone().write("auth/nowhere/login", json!({ "role": "node" })).await?;
    is(&reply, 403, "permission denied")
}

pub(crate) async fn certificate_kind_is_checked(ctx: &Ctx) -> Outcome {
    let auth = ctx.auth().await?;
    let pem = auth.aws.signing_certificate_pem();
    let body = json!({ "type": "rsa2048", "aws_public_cert": pem });
    let reply = ctx.root().write(&auth.path("config/certificate/x"), body).await?;
    is(&reply, 400, "invalid certificate type \"rsa2048\"")?;
    let body = json!({ "type": "pkcs7", "aws_public_cert": STANDARD.encode(&pem) });
    crate::bench::status(&ctx.root().write(&auth.path("config/certificate/x"), body).await?, 204)?;
    let read = ctx.root().read(&auth.path("config/certificate/x")).await?;
    same("type", read.data("type"), json!("pkcs7"))
}
