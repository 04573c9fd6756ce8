//! The `ec2` login and what the method says when such a token is renewed. The order of the checks
//! is Vault's: an agent that is refused learns the same thing from the model.

use std::collections::BTreeMap;

use super::super::answer::Refusal;
use super::super::cidr;
use super::super::field::{Field, Form, Kind, field};
use super::super::ids;
use super::super::lease::{Terms, after};
use super::super::token::Ec2Login;
use super::access_list::{DISABLED, Entry};
use super::document::{self, Document};
use super::ec2::{self, Ec2Question};
use super::{Aws, Grant, Outcome, Request, role};

const LOGIN: &[Field] = &[
    field("role", Kind::Text),
    field("pkcs7", Kind::Text),
    field("identity", Kind::Text),
    field("signature", Kind::Text),
    field("nonce", Kind::Text),
    field("iam_http_request_method", Kind::Text),
    field("iam_request_url", Kind::Text),
    field("iam_request_body", Kind::Text),
    field("iam_request_headers", Kind::Text),
];

/// The longest nonce that Vault stores.
const NONCE_LIMIT: usize = 128;

impl Aws {
    pub(super) fn login(&mut self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let (form, warnings) = Form::parse(LOGIN, request.body)?;
        let document = self.open(&form)?;
        let name = match form.text("role") {
            "" => document.image_id.clone(),
            name => name.to_owned(),
        };
        let role = self
            .roles
            .get(&name)
            .cloned()
            .ok_or_else(|| Refusal::bad(format!("entry for role {name:?} not found")))?;
        let cidrs = role.list("token_bound_cidrs");
        if !cidrs.is_empty() && !cidr::any_contains(&cidrs, request.from) {
            return Err(Refusal::new(403, "permission denied"));
        }
        if role.text("auth_type") != "ec2" {
            return Err(Refusal::bad(format!("auth method ec2 not allowed for role {name}")));
        }
        let login = Ec2Login {
            instance_id: document.instance_id.clone(),
            region: document.region.clone(),
            account_id: document.account_id.clone(),
        };
        let Some(evidence) = request.evidence else {
            return Ok(Outcome::Ask(self.question(&login)));
        };
        let instance = ec2::running_at_login(evidence)?;
        let regions = role.list("bound_region");
        if !regions.is_empty() && !regions.contains(&document.region) {
            return Err(Refusal::bad(format!(
                "Region {:?} does not satisfy the constraint on role {name:?}",
                document.region
            )));
        }
        role::admit(&role, &name, &document, instance)?;
        let nonce = self.remember(&form, &name, &document, request)?;
        Ok(Outcome::Login(Box::new(Grant {
            alias: self.alias(&role, &document, &instance.image_id),
            policies: role::policies(&role),
            meta: self.metadata(&name, &document, nonce),
            terms: role::terms(&role, request.mount_ttl),
            num_uses: role.number("token_num_uses"),
            batch: role.text("token_type") == "batch",
            bound_cidrs: cidrs,
            login,
            warnings,
        })))
    }

    fn open(&self, form: &Form) -> Result<Document, Refusal> {
        let (pkcs7, identity, signature) =
            (form.text("pkcs7"), form.text("identity"), form.text("signature"));
        // Both are decoded before anybody asks whether they are wanted.
        let decoded =
            (document::decode_identity(identity)?, document::decode_signature(signature)?);
        match (pkcs7.is_empty(), identity.is_empty(), signature.is_empty()) {
            (false, false, false) => Err(Refusal::bad(
                "both pkcs7 and a tuple containing the instance identity document and its \
                 SHA256 RSA signature is supplied; provide only one",
            )),
            (false, _, _) => self.open_pkcs7(pkcs7),
            (true, false, false) => self.open_identity(&decoded.0, &decoded.1),
            _ => Err(Refusal::bad("didn't supply required authentication values")),
        }
    }

    /// Holds the login against the access list and writes the entry. The answer is the nonce that
    /// the server made up, if the client sent none and may come back.
    fn remember(
        &mut self,
        form: &Form,
        name: &str,
        document: &Document,
        request: &Request<'_>,
    ) -> Result<Option<String>, Refusal> {
        let role = &self.roles[name];
        let mut disallow = role.flag("disallow_reauthentication");
        let supplied = form.given("nonce");
        let mut nonce = form.text("nonce").to_owned();
        if supplied && nonce.is_empty() {
            nonce = DISABLED.into();
            disallow = true;
        }
        let stored = self.list.get(&document.instance_id);
        if let Some(entry) = stored {
            entry.admits(&nonce, &document.pending_time, role).map_err(Refusal::bad)?;
            disallow |= entry.disallow_reauthentication;
        }
        if nonce.is_empty() {
            nonce = ids::uuid();
        }
        if nonce.len() > NONCE_LIMIT && !disallow {
            return Err(Refusal::bad("client nonce exceeding the limit of 128 characters"));
        }
        let longest = request.mount_ttl.1.max(role.number("token_max_ttl"));
        // Role, nonce and creation time are those of the first login for ever, even after a
        // migration: the nonce of a migrated instance is still the old one.
        let first = stored.cloned().unwrap_or_else(|| Entry {
            role: name.to_owned(),
            nonce: nonce.clone(),
            created: request.now,
            updated: request.now,
            expires: request.now,
            pending_time: String::new(),
            disallow_reauthentication: false,
        });
        let entry = Entry {
            updated: request.now,
            expires: after(request.now, longest),
            pending_time: document.pending_time.clone(),
            disallow_reauthentication: disallow,
            ..first
        };
        self.list.insert(document.instance_id.clone(), entry);
        Ok((!disallow && !supplied).then_some(nonce))
    }

    fn alias(&self, role: &Form, document: &Document, image: &str) -> String {
        match self.identity.as_ref().map_or("role_id", |identity| identity.text("ec2_alias")) {
            "instance_id" => document.instance_id.clone(),
            "image_id" => image.to_owned(),
            _ => role.text("role_id").to_owned(),
        }
    }

    fn metadata(
        &self,
        role: &str,
        document: &Document,
        nonce: Option<String>,
    ) -> BTreeMap<String, String> {
        let configured = self.identity.as_ref().map(|identity| identity.list("ec2_metadata"));
        let mut wanted = configured.unwrap_or_else(|| vec!["default".into()]);
        if wanted.iter().any(|name| name == "default") {
            wanted.extend(["account_id".into(), "auth_type".into()]);
        }
        let mut meta = BTreeMap::from([
            ("role".to_owned(), role.to_owned()),
            ("role_tag_max_ttl".to_owned(), "0s".to_owned()),
        ]);
        for (name, value) in [
            ("account_id", document.account_id.as_str()),
            ("auth_type", "ec2"),
            ("ami_id", &document.image_id),
            ("instance_id", &document.instance_id),
            ("region", &document.region),
        ] {
            if wanted.iter().any(|wanted| wanted == name) {
                meta.insert(name.to_owned(), value.to_owned());
            }
        }
        if let Some(nonce) = nonce {
            meta.insert("nonce".into(), nonce);
        }
        meta
    }

    /// What has to be asked before a token of this instance can be renewed.
    pub(in super::super) fn renewal_question(&self, login: &Ec2Login) -> Ec2Question {
        self.question(login)
    }

    /// The lease that a renewal may have: by the role of the instance's first login.
    pub(in super::super) fn renew(
        &mut self,
        login: &Ec2Login,
        request: &Request<'_>,
    ) -> Result<Terms, Refusal> {
        let id = &login.instance_id;
        let failed = |status: u16, text: String| {
            Refusal::fault(status, format!("failed to renew entry: {text}"))
        };
        if let Some(evidence) = request.evidence {
            ec2::running(evidence).map_err(|error| {
                let status = if error.throttled { 502 } else { 500 };
                failed(status, format!("failed to verify instance ID {id:?}: {}", error.text))
            })?;
        }
        let entry = self.list.get_mut(id).ok_or_else(|| {
            let text = "failed to verify the access list identity entry for instance ID";
            failed(500, format!("{text}: {id:?}"))
        })?;
        let role = self
            .roles
            .get(&entry.role)
            .ok_or_else(|| failed(500, "role entry not found".into()))?;
        let longest = request.mount_ttl.1.max(role.number("token_max_ttl"));
        entry.updated = request.now;
        entry.expires = after(request.now, longest);
        Ok(role::terms(role, request.mount_ttl))
    }
}
