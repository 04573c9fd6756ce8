//! Labels and taints as Kubernetes takes them, and the labels that NodeRestriction takes from a
//! kubelet: one that is refused keeps the node from registering at all.

use super::Taint;
use super::endpoint::is_dns_name;

/// Kubernetes' own labels that a kubelet may set on its node.
const OF_A_KUBELET: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
];

/// Namespaces of which, with those below them, a kubelet may set every label.
const NAMESPACES_OF_A_KUBELET: [&str; 2] = ["node.kubernetes.io", "kubelet.kubernetes.io"];

/// The effects of a taint.
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// What is wrong with a label, and what to do.
pub fn label_fault(key: &str, value: &str) -> Option<String> {
    if let Some(fault) = key_fault(key).or_else(|| value_fault(value)) {
        return Some(fault);
    }
    let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
    let reserved = ["kubernetes.io", "k8s.io"].iter().any(|own| within(namespace, own));
    let allowed = OF_A_KUBELET.contains(&key)
        || NAMESPACES_OF_A_KUBELET.iter().any(|own| within(namespace, own));
    (reserved && !allowed).then(|| {
        format!(
            "NodeRestriction lets no kubelet set `{key}` on its own node; take it out, and let an \
             administrator set it (kubectl label node), or use a label of your own domain"
        )
    })
}

/// Whether a namespace is another or below it.
fn within(namespace: &str, other: &str) -> bool {
    namespace.strip_suffix(other).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Parses `key=value:Effect` or `key:Effect`; the error says what is wrong with it.
pub fn taint(text: &str) -> Result<Taint, String> {
    let wrong = || format!("`{text}` is no taint; write it like example.com/gpu=yes:NoSchedule");
    let (label, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
    let (key, value) = label.split_once('=').unwrap_or((label, ""));
    if !EFFECTS.contains(&effect) {
        return Err(format!(
            "`{effect}` is no effect of a taint in `{text}`; there are {}",
            EFFECTS.join(", ")
        ));
    }
    match key_fault(key).or_else(|| value_fault(value)) {
        Some(fault) => Err(format!("`{text}`: {fault}")),
        None => Ok(Taint { key: key.into(), value: value.into(), effect: effect.into() }),
    }
}

fn key_fault(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    // A prefix is in lower case, which a DNS name need not be.
    let prefixed = prefix.is_none_or(|prefix| {
        is_dns_name(prefix) && !prefix.contains(|c: char| c.is_ascii_uppercase())
    });
    (!prefixed || !is_word(name)).then(|| {
        format!(
            "`{key}` is no key; take [domain/]name, the name of at most 63 letters, digits and \
             inner - _ ."
        )
    })
}

fn value_fault(value: &str) -> Option<String> {
    (!value.is_empty() && !is_word(value))
        .then(|| format!("`{value}` is no value; take at most 63 letters, digits and inner - _ ."))
}

fn is_word(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text.chars().all(inner)
        && edge(text.chars().next())
        && edge(text.chars().next_back())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_a_kubelet_may_set_are_taken() {
        for key in [
            "rack",
            "example.com/rack",
            "node.kubernetes.io/pool",
            "deep.node.kubernetes.io/x",
            "kubelet.kubernetes.io/x",
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
            "notkubernetes.io/x",
        ] {
            assert_eq!(label_fault(key, "a.b-c_1"), None, "{key}");
        }
        assert_eq!(label_fault("rack", ""), None);
    }

    #[test]
    fn labels_that_would_be_refused_are_told() {
        for (key, value, why) in [
            ("node-role.kubernetes.io/control-plane", "", "NodeRestriction lets no kubelet"),
            ("node-restriction.kubernetes.io/pool", "a", "NodeRestriction lets no kubelet"),
            ("kubernetes.io/role", "a", "NodeRestriction lets no kubelet"),
            ("x.k8s.io/y", "a", "NodeRestriction lets no kubelet"),
            ("", "a", "is no key"),
            ("example.com/", "a", "is no key"),
            ("a/b/c", "a", "is no key"),
            ("Example.com/b", "a", "is no key"),
            ("-a", "a", "is no key"),
            ("a", "b c", "is no value"),
            ("a", "b.", "is no value"),
        ] {
            let found = label_fault(key, value).unwrap_or_default();
            assert!(found.contains(why), "{key}={value}: {found}");
        }
        assert!(label_fault(&"a".repeat(64), "").is_some());
    }

    #[test]
    fn taints_are_parsed_or_told() {
        let gpu = taint("example.com/gpu=yes:NoExecute").unwrap();
        assert_eq!(gpu.to_string(), "example.com/gpu=yes:NoExecute");
        assert_eq!(taint("a:NoSchedule").unwrap().value, "");
        for (text, why) in [
            ("a", "is no taint"),
            ("a=b", "is no taint"),
            ("a=b:Never", "`Never` is no effect"),
            (":NoSchedule", "is no key"),
            ("a=b c:NoSchedule", "is no value"),
        ] {
            let found = taint(text).unwrap_err();
            assert!(found.contains(why), "{text}: {found}");
        }
    }
}
