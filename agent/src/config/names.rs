//! Names as templates over verified facts: `system:node:{{instance_id}}`.
//!
//! The variables come from the identity document that Vault has accepted and from the
//! configuration; an unknown one is refused when the configuration is read, so that filling in
//! can only fail where a document lacks a fact.

use std::collections::BTreeMap;

use crate::attest::Identity;
use crate::error::{Code, Error, Result};

/// The facts that templates may name; the operator's `[variables]` come on top.
pub const FACTS: &[&str] = &[
    "instance_id",
    "private_ip",
    "region",
    "availability_zone",
    "account_id",
    "image_id",
    "instance_type",
    "cluster",
];

/// A text with `{{variable}}` in it, known to be well-formed and to name known variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(String);

/// The names of one certificate, filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The subject's common name.
    pub common_name: String,
    /// The subject's organisations.
    pub organizations: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// IP addresses.
    pub ips: Vec<String>,
    /// URIs.
    pub uris: Vec<String>,
}

impl Template {
    /// Parses a template; the error says what is wrong with it.
    pub fn parse(
        text: &str,
        variables: &BTreeMap<String, String>,
    ) -> std::result::Result<Template, String> {
        for piece in pieces(text)? {
            if let Piece::Variable(name) = piece
                && !FACTS.contains(&name)
                && !variables.contains_key(name)
            {
                let mut known: Vec<&str> = FACTS.to_vec();
                known.extend(variables.keys().map(String::as_str));
                return Err(format!(
                    "`{{{{{name}}}}}` is no variable; there are {}; own ones go into [variables]",
                    known.join(", ")
                ));
            }
        }
        Ok(Template(text.to_string()))
    }

    /// The template as it was written.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The variable that is all of it: `api_server` of `{{api_server}}`.
    pub fn variable(&self) -> Option<&str> {
        self.0.strip_prefix("{{")?.strip_suffix("}}").map(str::trim)
    }

    /// The text where the configuration alone says it, without a fact of the node's identity.
    pub fn known(&self, cluster: &str, variables: &BTreeMap<String, String>) -> Option<String> {
        let mut text = String::new();
        for piece in pieces(&self.0).ok()? {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Variable("cluster") => text.push_str(cluster),
                Piece::Variable(name) if FACTS.contains(&name) => return None,
                Piece::Variable(name) => text.push_str(variables.get(name)?),
            }
        }
        Some(text)
    }

    /// Fills in the variables.
    pub fn fill(&self, values: &Values<'_>) -> Result<String> {
        let malformed = |_| Error::new(Code::Bug, format!("template `{}` went unchecked", self.0));
        let mut text = String::new();
        for piece in pieces(&self.0).map_err(malformed)? {
            match piece {
                Piece::Text(part) => text.push_str(part),
                Piece::Variable(name) => text.push_str(&values.value(name)?),
            }
        }
        Ok(text)
    }
}

/// What templates are filled from.
#[derive(Debug)]
pub struct Values<'a> {
    /// The node's identity, accepted by Vault.
    pub identity: &'a Identity,
    /// The cluster's name.
    pub cluster: &'a str,
    /// The operator's own variables.
    pub variables: &'a BTreeMap<String, String>,
}

impl Values<'_> {
    fn value(&self, name: &str) -> Result<String> {
        let identity = self.identity;
        let value = match name {
            "instance_id" => Some(identity.instance_id.clone()),
            "private_ip" => identity.private_ip.map(|ip| ip.to_string()),
            "region" => Some(identity.region.clone()),
            "availability_zone" => Some(identity.availability_zone.clone()),
            "account_id" => Some(identity.account_id.clone()),
            "image_id" => Some(identity.image_id.clone()),
            "instance_type" => Some(identity.instance_type.clone()),
            "cluster" => Some(self.cluster.to_string()),
            _ => self.variables.get(name).cloned(),
        };
        value.filter(|value| !value.is_empty()).ok_or_else(|| {
            Error::new(Code::Config, format!("this node's identity has no {name}"))
                .advise(format!("use a template without {{{{{name}}}}} on this kind of node"))
        })
    }
}

enum Piece<'a> {
    Text(&'a str),
    Variable(&'a str),
}

fn pieces(text: &str) -> std::result::Result<Vec<Piece<'_>>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let end = rest[start..]
            .find("}}")
            .ok_or_else(|| format!("`{text}` opens {{{{ and does not close it"))?;
        found.push(Piece::Text(&rest[..start]));
        found.push(Piece::Variable(rest[start + 2..start + end].trim()));
        rest = &rest[start + end + 2..];
    }
    if rest.contains("}}") {
        return Err(format!("`{text}` closes }}}} that it did not open"));
    }
    found.push(Piece::Text(rest));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> std::result::Result<String, String> {
        let variables = BTreeMap::from([("api".to_string(), "api.example".to_string())]);
        let identity = Identity {
            instance_id: "i-0aaa".into(),
            private_ip: None,
            region: "eu-west-1".into(),
            availability_zone: "eu-west-1a".into(),
            account_id: "123456789012".into(),
            image_id: "ami-1".into(),
            instance_type: "m5.large".into(),
        };
        let template = Template::parse(text, &variables)?;
        let values = Values { identity: &identity, cluster: "prod", variables: &variables };
        template.fill(&values).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn variables_are_filled_in() {
        assert_eq!(filled("system:node:{{instance_id}}").unwrap(), "system:node:i-0aaa");
        assert_eq!(filled("{{ api }}/{{cluster}}").unwrap(), "api.example/prod");
        assert_eq!(filled("plain").unwrap(), "plain");
    }

    #[test]
    fn what_cannot_be_filled_in_is_refused_with_the_reason() {
        assert!(filled("{{hostname}}").unwrap_err().contains("is no variable"));
        assert!(filled("{{instance_id").unwrap_err().contains("does not close"));
        assert!(filled("instance_id}}").unwrap_err().contains("did not open"));
        assert!(filled("{{private_ip}}").unwrap_err().contains("no private_ip"));
    }
}
