use podkit_foundation::params::ParamType;

use rustls::crypto::aws_lc_rs::default_provider;

use super::super::pair::Pair;
use super::super::rules::{AllowRules, CnRule, SanRule};
use super::super::set::{CertificateSet, Named};
use super::*;

fn certificate(name: &str, sans: &[&str]) -> Certificate {
    let san = |text: &&str| match text.split_once(':') {
        Some(("uri", rest)) => SanType::URI(rest.try_into().unwrap()),
        Some(("email", rest)) => SanType::Rfc822Name(rest.try_into().unwrap()),
        Some(("ip", rest)) => SanType::IpAddress(rest.parse().unwrap()),
        _ => SanType::DnsName((*text).try_into().unwrap()),
    };
    let params = client_params(name, sans.iter().map(san).collect());
    let made = Authority::new("CA").leaf(&params);
    Certificate::from_der(&CertificateDer::from_pem_slice(made.chain.as_bytes()).unwrap()).unwrap()
}

#[test]
fn one_rule_that_matches_is_enough_and_none_lets_all_in() {
    let web = certificate(
        "web.shop",
        &[
            "web.shop.svc",
            "uri:spiffe://cluster.local/ns/shop/sa/web",
            "email:Ops@Example.org",
            "ip:10.0.0.7",
        ],
    );
    let allowed = |sans: &[&str], names: &[&str]| {
        let rules = AllowRules {
            sans: sans
                .iter()
                .map(|text| SanRule::parse(text).unwrap())
                .collect(),
            common_names: names
                .iter()
                .map(|text| CnRule::parse(text).unwrap())
                .collect(),
        };
        rules.allow(&web)
    };
    assert!(allowed(&[], &[]));
    assert!(allowed(&["WEB.shop.svc"], &[]));
    assert!(allowed(&["*.shop.svc"], &[]));
    assert!(allowed(&["nobody.svc", "10.0.0.7"], &["nobody"]));
    assert!(allowed(&["spiffe://cluster.local/ns/shop/sa/web"], &[]));
    assert!(allowed(&["Ops@example.ORG"], &[]));
    assert!(allowed(&[], &["web.shop"]));
    assert!(allowed(&[], &["*.SHOP"]));

    assert!(!allowed(&["shop.svc"], &[]));
    assert!(!allowed(&["*.svc"], &[]), "a wildcard is one label");
    assert!(!allowed(&["*.web.shop.svc"], &[]));
    assert!(!allowed(&["spiffe://cluster.local/ns/shop/sa/we"], &[]));
    assert!(
        !allowed(&["ops@example.org"], &[]),
        "what is before the @ is compared exactly"
    );
    assert!(
        !allowed(&["web.shop"], &[]),
        "a common name is no alternative name"
    );
    assert!(!allowed(&[], &["web", "*.web.shop", "Web.shop"]));
}

#[test]
fn a_wildcard_in_a_certificate_passes_only_as_itself() {
    let greedy = certificate("x", &["*.shop.svc"]);
    let rule = |text| SanRule::parse(text).unwrap();
    let allow = |text| {
        AllowRules {
            sans: vec![rule(text)],
            common_names: vec![],
        }
        .allow(&greedy)
    };
    assert!(!allow("*.shop.svc") && !allow("web.shop.svc"));
}

#[test]
fn rules_that_mean_nothing_are_refused() {
    for bad in [
        "",
        "*",
        "*.",
        "a.*.b",
        "web*",
        "spiffe://a/*",
        "@b",
        "a@",
        "*@b",
        "a b",
    ] {
        assert!(SanRule::parse(bad).is_err(), "{bad}");
    }
    for bad in ["*", "*.", "a*"] {
        assert!(CnRule::parse(bad).is_err(), "{bad}");
    }
    for good in ["*.a", "a.b", "spiffe://a/b", "a@b", "::1"] {
        assert_eq!(SanRule::parse(good).unwrap().to_string(), good);
    }
}

/// The form of Envoy's documentation: Hash first, the subject quoted, URI, DNS.
#[test]
fn the_forwarded_certificate_is_written_as_envoy_does() {
    let client = certificate(
        "Test, \"Client\"\r\nX: y",
        &["uri:http://a.example/;b", "a.example", "b.example"],
    );
    let hash = super::super::certificate::hex(&client.sha256);
    assert_eq!(
        forwarded_client_cert(&client),
        format!(
            "Hash={hash};Subject=\"CN=Test\\, \\\\\"Client\\\\\"\\0d\\0aX: y\";URI=\"http://a.example/;b\";DNS=a.example;DNS=b.example"
        )
    );
}

#[test]
fn the_forwarded_certificate_is_bounded() {
    let names: Vec<String> = (0..500)
        .map(|at| format!("name-{at}.example.org"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let value = forwarded_client_cert(&certificate("web", &names));
    assert!(
        value.len() <= 4_096 && value.contains("DNS=name-0.example.org"),
        "{}",
        value.len()
    );
}

#[test]
fn the_name_chooses_the_certificate() {
    let (authority, files) = (Authority::new("CA"), Files::new());
    files.pair("a", &authority.server(&["first.example"]));
    files.pair("b", &authority.server(&["*.example.org", "example.org"]));
    files.pair("c", &authority.server(&["exact.example.org"]));
    let dir = shown(files.0.path());
    let (tls, _) = server(&[("cert-dir", &dir)]);
    // Verification would refuse what we want to see.
    let check = |asked: &str, expected: &str| {
        let set = handshake_name(&tls, asked);
        assert_eq!(set.as_deref(), Some(expected), "{asked}");
    };
    check("first.example", "first.example");
    check("example.org", "*.example.org");
    check("www.example.org", "*.example.org");
    check("exact.example.org", "exact.example.org");
    check("deep.www.example.org", "first.example");
    check("unknown.test", "first.example");

    let (strict, _) = server(&[("cert-dir", &dir), ("sni-strict", "true")]);
    assert_eq!(
        handshake_name(&strict, "www.example.org").as_deref(),
        Some("*.example.org")
    );
    assert_eq!(handshake_name(&strict, "unknown.test"), None);
    assert_eq!(
        handshake_name(&strict, "127.0.0.1"),
        None,
        "an address sends no name"
    );
    let error = handshake(
        &strict,
        &Arc::new(client(authority.roots())),
        "unknown.test",
    )
    .err()
    .unwrap();
    assert_eq!(Reason::of(&error), Reason::UnknownName);
}

/// The first name of what a client that trusts everything gets.
fn handshake_name(tls: &ServerTls, asked: &str) -> Option<String> {
    let mut config = client(RootCertStore::empty());
    config
        .dangerous()
        .set_certificate_verifier(Arc::new(handshakes::TrustAll));
    let joined = handshake(tls, &Arc::new(config), asked).ok()?;
    let der = &joined.client.peer_certificates()?[0];
    Certificate::from_der(der).ok()?.dns.first().cloned()
}

#[test]
fn a_client_gets_the_kind_of_key_that_it_can_verify() {
    use rustls::SignatureScheme as Scheme;
    let authority = Authority::new("CA");
    let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let params = server_params(&["a.example"], -DAY, DAY);
    let named = |made: Made| {
        let (now, provider) = (std::time::SystemTime::now(), default_provider());
        let pair = Pair::check(made.chain.as_bytes(), made.key.as_bytes(), now, &provider).unwrap();
        Named {
            name: String::new(),
            digest: pair.leaf.sha256,
            made: false,
            pair: Arc::new(pair),
        }
    };
    let pairs = [
        named(authority.leaf(&params)),
        named(authority.leaf_with(&params, &rsa)),
    ];
    let set = CertificateSet::new(&pairs, false);
    let kind = |name, schemes: &[Scheme]| {
        format!("{:?}", set.choose(name, schemes).unwrap().key.algorithm())
    };
    for name in [Some("a.example"), None] {
        assert_eq!(
            kind(
                name,
                &[Scheme::RSA_PSS_SHA256, Scheme::ECDSA_NISTP256_SHA256]
            ),
            "ECDSA"
        );
        assert_eq!(kind(name, &[Scheme::RSA_PSS_SHA256]), "RSA");
        assert_eq!(
            kind(name, &[Scheme::ED25519]),
            "ECDSA",
            "it will fail, and say why"
        );
    }
}
