//! Tables of what is accepted and what is not, on certificates made here.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyUsagePurpose, NameConstraints,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType, SerialNumber,
    date_time_ymd,
};

use super::super::store::fixture::{Ca, material, now, params};
use super::*;
use crate::config::{Names, Usage};
use crate::secret::Secret;

fn names() -> Names {
    Names {
        common_name: "node".into(),
        organizations: vec!["system:nodes".into()],
        dns: vec!["Node.example".into()],
        ips: vec!["10.0.0.1".into()],
        uris: vec!["spiffe://example/node".into()],
    }
}

fn leaf_of(params: &CertificateParams) -> Leaf {
    Leaf::of(&Ca::new("tests").material(params)).unwrap()
}

#[test]
fn a_certificate_is_read_as_openssl_and_vault_show_it() {
    let mut params = params("node");
    params.serial_number = Some(SerialNumber::from_slice(&[0x00, 0x8f, 0x01]));
    let leaf = leaf_of(&params);
    assert_eq!(leaf.serial, "8f:01");
    assert_eq!(leaf.common_names, ["node"]);
    assert_eq!(leaf.organizations, ["system:nodes"]);
    assert_eq!(leaf.dns, ["node.example"]);
    assert_eq!(leaf.ips, [IpAddr::from([10, 0, 0, 1])]);
    assert_eq!(leaf.uris, ["spiffe://example/node"]);
    assert_eq!(leaf.not_before.to_string(), "2026-06-01T00:00:00Z");
    assert_eq!(leaf.not_after.to_string(), "2026-12-01T00:00:00Z");
    assert!(leaf.server && leaf.client && !leaf.is_ca && leaf.others.is_empty());
    assert_eq!(leaf.fingerprint.len(), 64);
    assert_eq!(leaf.left(now()).as_hours(), 153 * 24);
}

#[test]
fn names_are_ours_and_nothing_more() {
    type Change = fn(&mut CertificateParams);
    let cases: &[(Change, &str)] = &[
        (|_| {}, ""),
        (|p| p.distinguished_name.push(DnType::CountryName, "CH"), ""),
        (
            |p| p.distinguished_name.push(DnType::CommonName, "other"),
            "common name \"other\" instead of \"node\"",
        ),
        (
            |p| p.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "admin"),
            "common name \"admin\" was not asked for; more than one common name",
        ),
        (
            |p| p.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "node"),
            "more than one common name",
        ),
        (
            |p| {
                p.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 10]), "system:masters")
            },
            "organisation \"system:masters\" was not asked for",
        ),
        (
            |p| assert!(p.distinguished_name.remove(DnType::OrganizationName)),
            "organisation \"system:nodes\" is missing",
        ),
        (
            |p| p.subject_alt_names.push(SanType::DnsName("*.example".try_into().unwrap())),
            "DNS name \"*.example\" was not asked for",
        ),
        (|p| drop(p.subject_alt_names.remove(0)), "DNS name \"node.example\" is missing"),
        (
            |p| p.subject_alt_names[1] = SanType::IpAddress([10, 0, 0, 2].into()),
            "address \"10.0.0.2\" instead of \"10.0.0.1\"",
        ),
        (
            |p| p.subject_alt_names.push(SanType::URI("spiffe://x/admin".try_into().unwrap())),
            "URI \"spiffe://x/admin\" was not asked for",
        ),
        (
            |p| p.subject_alt_names.push(SanType::Rfc822Name("a@b.c".try_into().unwrap())),
            "other name \"email a@b.c\" was not asked for",
        ),
        (
            |p| p.subject_alt_names.push(SanType::OtherName((vec![1, 2, 3], "x".into()))),
            "other name \"OtherName(",
        ),
        (|p| p.subject_alt_names.clear(), "DNS name \"node.example\" is missing; address"),
    ];
    for (change, expected) in cases {
        let mut params = params("node");
        change(&mut params);
        let found = check_names(&leaf_of(&params), &names());
        let text = found.as_ref().map_or_else(|error| format!("{error:#}"), |()| String::new());
        assert!(text.starts_with(expected), "{text:?} where {expected:?} was expected");
        assert_eq!(text.is_empty(), expected.is_empty(), "{text}");
        if let Err(error) = found {
            assert_eq!(error.code(), Code::NamesWrong);
        }
    }
}

#[test]
fn a_strangers_names_are_escaped_and_cut_in_texts() {
    let mut params = params("node");
    params.distinguished_name.push(DnType::CommonName, format!("\x1b[31m\n{}", "x".repeat(500)));
    for index in 0..50 {
        let name = format!("n{index}.example").try_into().unwrap();
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    let text = format!("{:#}", check_names(&leaf_of(&params), &names()).unwrap_err());
    assert!(text.len() < 500 && !text.contains(['\x1b', '\n']), "{text}");
    assert!(text.contains("and more"), "{text}");
}

#[test]
fn usage_has_to_allow_what_is_asked_for() {
    use ExtendedKeyUsagePurpose::{ClientAuth, CodeSigning, ServerAuth};
    let cases = [
        (vec![ServerAuth, ClientAuth], [true, true, true]),
        (vec![ServerAuth], [true, false, false]),
        (vec![ClientAuth], [false, true, false]),
        (vec![CodeSigning], [false, false, false]),
        (vec![], [false, false, false]),
    ];
    for (usages, expected) in cases {
        let mut params = params("node");
        params.extended_key_usages = usages.clone();
        let leaf = leaf_of(&params);
        let found = [Usage::Server, Usage::Client, Usage::Both]
            .map(|usage| check_usage(&leaf, usage).is_ok());
        assert_eq!(found, expected, "{usages:?}");
    }
    let mut params = params("node");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let error = check_usage(&leaf_of(&params), Usage::Both).unwrap_err();
    assert!(format!("{error:#}").contains("authority"), "{error:#}");
}

#[test]
fn validity_is_judged_by_the_second() {
    let leaf = leaf_of(&params("node"));
    let second = SignedDuration::from_secs(1);
    let cases = [
        (leaf.not_before, true),
        (leaf.not_before - second, false),
        (leaf.not_after - second, true),
        (leaf.not_after, false),
    ];
    for (at, expected) in cases {
        let found = check_validity(&leaf, at);
        assert_eq!(found.is_ok(), expected, "{at}");
        if let Err(error) = found {
            assert_eq!(error.code(), Code::ValidityWrong);
        }
    }
    let inverted = Leaf { not_before: leaf.not_after, not_after: leaf.not_before, ..leaf };
    assert!(check_validity(&inverted, now()).is_err());
}

#[test]
fn a_key_fits_its_own_certificate_only() {
    let (one, other) = (material("one"), material("other"));
    let leaf = Leaf::of(&one).unwrap();
    assert!(check_key(&leaf, &one).is_ok());
    for key in [other.key.expose(), "", "-----BEGIN PRIVATE KEY-----", &one.cert] {
        let swapped = Material { key: Secret::new(key.to_owned()), ..one.clone() };
        let error = check_key(&leaf, &swapped).unwrap_err();
        assert_eq!(error.code(), Code::CertificateBad);
    }
}

/// What came of a chain, given the authorities that were pinned.
fn chain(material: &Material, pinned: &[&Ca]) -> std::result::Result<(), (Code, String)> {
    let pinned: Vec<Authority> = pinned.iter().flat_map(|ca| ca.bundle()).collect();
    check_chain(material, &pinned, now()).map_err(|error| (error.code(), format!("{error:#}")))
}

fn refused(material: &Material, pinned: &[&Ca], code: Code, text: &str) {
    let (found, told) = chain(material, pinned).expect_err(text);
    assert_eq!(found, code, "{told}");
    assert!(told.contains(text), "{told:?} should say {text:?}");
}

#[test]
fn authorities_of_every_kind_of_key_verify() {
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let ca = Ca::root(Ca::params("root"), algorithm);
        let other = Ca::new("another");
        let material = ca.material(&params("node"));
        assert_eq!(chain(&material, &[&other, &ca]), Ok(()), "{algorithm:?}");
    }
    let mut client = params("node");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let ca = Ca::new("root");
    assert_eq!(chain(&ca.material(&client), &[&ca]), Ok(()));
    refused(&ca.material(&client), &[&Ca::new("x")], Code::IssuerUnknown, "\"CN=root\"");
}

#[test]
fn intermediates_lead_up_to_a_pinned_root_or_are_pinned_themselves() {
    let root = Ca::new("root");
    let middle = root.below(Ca::params("middle"));
    let (cert, key) = middle.sign(&params("node"));
    let sent = [middle.pem.clone(), root.pem.clone()];
    let material = Material::new(&cert, &sent, key, &root.bundle()).unwrap();
    assert_eq!(certificates(material.cert.as_bytes()).unwrap().len(), 2, "no root is sent");
    assert_eq!(chain(&material, &[&root]), Ok(()));
    assert_eq!(chain(&material, &[&middle]), Ok(()));
    let bare = Material { cert, issuers: Vec::new(), ..material.clone() };
    assert_eq!(chain(&bare, &[&middle]), Ok(()));
    refused(&bare, &[&root], Code::IssuerUnknown, "\"CN=middle\" (key id ");
    let other = Ca::new("other");
    let path = format!(
        "\"CN=middle\" (SHA-256 {}), under \"CN=root\" (SHA-256 {})",
        middle.bundle()[0].fingerprint,
        root.bundle()[0].fingerprint
    );
    refused(&material, &[&other], Code::IssuerUnknown, &path);
    refused(&material, &[], Code::IssuerUnknown, &path);
}

#[test]
fn an_unknown_issuer_is_named_by_its_fingerprint() {
    let (old, new) = (Ca::new("kube ca"), Ca::new("kube ca"));
    let material = new.material(&params("node"));
    let fingerprint = new.bundle()[0].fingerprint.clone();
    refused(&material, &[&old], Code::IssuerUnknown, &fingerprint);
    assert_eq!(chain(&material, &[&old, &new]), Ok(()), "the union of old and new");
}

#[test]
fn an_authority_that_may_not_or_no_longer_sign_is_refused() {
    type Change = fn(&mut CertificateParams);
    let cases: [(Change, Code, &str); 4] = [
        (|p| p.not_after = date_time_ymd(2026, 6, 15), Code::ValidityWrong, "not valid now"),
        (|p| p.not_before = date_time_ymd(2026, 8, 1), Code::ValidityWrong, "not valid now"),
        (|p| p.is_ca = IsCa::NoCa, Code::CertificateBad, "does not verify"),
        (|p| p.key_usages = vec![KeyUsagePurpose::CrlSign], Code::CertificateBad, "not verify"),
    ];
    for (change, code, text) in cases {
        let mut root = Ca::params("root");
        change(&mut root);
        let ca = Ca::root(root, &PKCS_ECDSA_P256_SHA256);
        refused(&ca.material(&params("node")), &[&ca], code, text);
    }
}

#[test]
fn constraints_of_the_path_hold() {
    let mut short = Ca::params("root");
    short.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let root = Ca::root(short, &PKCS_ECDSA_P256_SHA256);
    assert_eq!(chain(&root.material(&params("node")), &[&root]), Ok(()));
    let middle = root.below(Ca::params("middle"));
    let deep = middle.material(&params("node"));
    assert!(chain(&deep, &[&root]).is_err(), "the root allows no intermediate");

    let mut narrow = Ca::params("root");
    narrow.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("elsewhere".into()),
            GeneralSubtree::IpAddress(CidrSubnet::V4([10, 0, 0, 0], [255, 0, 0, 0])),
        ],
        excluded_subtrees: Vec::new(),
    });
    let ca = Ca::root(narrow, &PKCS_ECDSA_P256_SHA256);
    assert!(chain(&ca.material(&params("node")), &[&ca]).is_err(), "node.example is not permitted");

    let root = Ca::new("root");
    let mut ordinary = params("middle");
    ordinary.is_ca = IsCa::ExplicitNoCa;
    let forger = root.below(ordinary);
    assert!(chain(&forger.material(&params("node")), &[&root]).is_err(), "a leaf signed a leaf");

    let mut strange = params("node");
    let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    extension.set_criticality(true);
    strange.custom_extensions = vec![extension];
    assert!(chain(&root.material(&strange), &[&root]).is_err(), "critical and unknown");
}

#[test]
fn an_expired_leaf_is_not_an_unknown_issuer() {
    let ca = Ca::new("root");
    let mut old = params("node");
    old.not_after = date_time_ymd(2026, 6, 2);
    let material = ca.material(&old);
    assert_eq!(chain(&material, &[&ca]), Ok(()));
    assert!(check_validity(&Leaf::of(&material).unwrap(), now()).is_err());
}

#[test]
fn bundles_are_read_with_limits_and_hold_authorities_only() {
    let ca = Ca::new("root");
    let (cert, _) = ca.sign(&params("node"));
    let cut = &ca.pem[..ca.pem.len() - 30];
    let commented = format!("# the root\n{}\ntext\n", ca.pem.replace('\n', "\r\n"));
    assert_eq!(bundle(&commented).unwrap(), ca.bundle());
    let cases = [
        (String::new(), "no certificate in it"),
        ("nonsense".to_owned(), "no certificate in it"),
        (cut.to_owned(), "no PEM"),
        (ca.pem.replace("MII", "!!!"), "no PEM"),
        (cert, "not a certificate authority"),
        ("x".repeat(BUNDLE_LIMIT + 1), "bytes of PEM"),
        (
            "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n".to_owned(),
            "no X.509 certificate",
        ),
        (
            "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".repeat(300),
            "no X.509 certificate",
        ),
    ];
    for (text, expected) in cases {
        let error = bundle(&text).expect_err(expected);
        assert_eq!(error.code(), Code::CertificateBad);
        assert!(format!("{error:#}").contains(expected), "{error:#}");
    }
    let many = ca.pem.repeat(CERTIFICATES_LIMIT + 1);
    assert!(many.len() > BUNDLE_LIMIT || bundle(&many).is_err());
}

#[test]
fn a_union_has_each_authority_once_in_a_stable_order() {
    let [a, b, c] = ["a", "b", "c"].map(|name| Ca::new(name).bundle().remove(0));
    let (first, second) = ([b.clone(), a.clone(), b.clone()], [a.clone(), c.clone(), b.clone()]);
    let all = union(&first, &second);
    assert_eq!(all, [b, a, c]);
    assert_eq!(certificates(pem(&all).as_bytes()).unwrap(), all);
}

/// Whatever is done to a certificate on its way, nothing panics and nothing passes.
#[test]
fn no_altered_certificate_passes() {
    let ca = Ca::new("root");
    let good = ca.material(&params("node"));
    let pinned = ca.bundle();
    assert!(check_chain(&good, &pinned, now()).is_ok());
    let der = certificates(good.cert.as_bytes()).unwrap().remove(0).der;
    for index in 0..der.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut altered = der.clone();
            altered[index] ^= change;
            let certificate = Authority { der: altered, fingerprint: String::new() };
            let material = Material { cert: pem(&[certificate]), ..good.clone() };
            if let Ok(leaf) = Leaf::of(&material) {
                // Whatever they say, they must return.
                check_names(&leaf, &names()).ok();
                check_usage(&leaf, Usage::Both).ok();
                check_validity(&leaf, now()).ok();
                check_key(&leaf, &material).ok();
            }
            let passed = check_chain(&material, &pinned, now()).is_ok();
            assert!(!passed, "byte {index} of {} altered by {change:#x}", der.len());
        }
    }
}

#[test]
fn a_torn_pem_is_told_in_one_short_line() {
    let torn = format!("-----BEGIN CERTIFICATE{}-----\nMIIB\n", "\u{7f}".repeat(2000));
    for error in [bundle(&torn).unwrap_err(), certificates(torn.as_bytes()).unwrap_err()] {
        let text = format!("{error:#}");
        assert!(text.chars().count() < 400 && !text.contains(char::is_control), "{text:?}");
    }
    let told = crate::config::bundle::last_end(torn.as_bytes()).unwrap_err();
    assert!(told.chars().count() < 400 && !told.contains(char::is_control), "{told:?}");
}
