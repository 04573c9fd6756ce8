//! The URL that the API is reached at: taken apart once, so that its host can be compared with
//! the names of the certificate that has to cover it.

use std::net::{IpAddr, Ipv6Addr};

/// A host and the URL that it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The URL, without a slash at its end.
    pub url: String,
    /// Its host: a DNS name in lower case, or an address without brackets.
    pub host: String,
}

impl Endpoint {
    /// Parses `https://HOST[:PORT]`; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Endpoint, String> {
        let url = text.trim();
        let wrong =
            |why: &str| Err(format!("`{text}` {why}; write it like https://api.example:6443"));
        let Some(authority) = url.strip_prefix("https://") else {
            return wrong("is no https:// URL");
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains(['/', '?', '#']) {
            return wrong("has a path");
        }
        if authority.contains('@') {
            return wrong("has a user name");
        }
        let (host, port) = split(authority);
        if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
            return wrong("has no port of 1 to 65535 behind the colon");
        }
        match host_of(host) {
            Some(host) => Ok(Endpoint { url: format!("https://{authority}"), host }),
            None => wrong("has no DNS name or address as its host"),
        }
    }
}

/// The host, with its brackets, and the port.
fn split(authority: &str) -> (&str, Option<&str>) {
    let after_brackets = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[after_brackets..].find(':') {
        Some(colon) => {
            let at = after_brackets + colon;
            (&authority[..at], Some(&authority[at + 1..]))
        }
        None => (authority, None),
    }
}

fn host_of(host: &str) -> Option<String> {
    if let Some(inner) = host.strip_prefix('[') {
        let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(address.to_string());
    }
    // A name that ends in digits is an address or nothing: 10.0.0.256 is no DNS name.
    let numeric = host
        .rsplit('.')
        .next()
        .is_some_and(|last| !last.is_empty() && last.chars().all(|c| c.is_ascii_digit()));
    if numeric {
        return host.parse::<IpAddr>().ok().map(|address| address.to_string());
    }
    is_dns_name(host).then(|| host.to_ascii_lowercase())
}

/// Whether a text is a DNS name: labels of letters, digits and inner hyphens.
pub fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_found() {
        for (text, url, host) in [
            ("https://API.example:6443", "https://API.example:6443", "api.example"),
            ("https://10.0.0.1/", "https://10.0.0.1", "10.0.0.1"),
            ("https://[fd00:0::1]:6443", "https://[fd00:0::1]:6443", "fd00::1"),
        ] {
            let found = Endpoint::parse(text).unwrap();
            assert_eq!((found.url.as_str(), found.host.as_str()), (url, host));
        }
    }

    #[test]
    fn what_is_no_endpoint_is_told() {
        for (text, why) in [
            ("http://api.example", "is no https:// URL"),
            ("api.example:6443", "is no https:// URL"),
            ("https://api.example/k8s", "has a path"),
            ("https://api.example?x", "has a path"),
            ("https://me@api.example", "has a user name"),
            ("https://api.example:", "has no port"),
            ("https://api.example:0", "has no port"),
            ("https://api.example:65536", "has no port"),
            ("https://", "has no DNS name"),
            ("https://10.0.0.256", "has no DNS name"),
            ("https://fd00::1", "has no port"),
            ("https://[fd00::1", "has no"),
            ("https://api_1.example", "has no DNS name"),
        ] {
            let found = Endpoint::parse(text).unwrap_err();
            assert!(found.contains(why), "{text}: {found}");
        }
    }
}
