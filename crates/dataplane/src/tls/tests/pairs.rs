use std::time::SystemTime;

use proptest::prelude::*;
use rustls::crypto::aws_lc_rs::default_provider;

use super::super::pair::{Cause, Pair, Part, Problem};
use super::*;

fn check(chain: &str, key: &str) -> Result<Pair, Problem> {
    Pair::check(
        chain.as_bytes(),
        key.as_bytes(),
        SystemTime::now(),
        &default_provider(),
    )
}

#[track_caller]
fn refused(chain: &str, key: &str, cause: Cause, part: Part, words: &str) {
    let problem = check(chain, key).unwrap_err();
    assert_eq!(
        (problem.cause, problem.part),
        (cause, part),
        "{}",
        problem.text
    );
    assert!(problem.text.contains(words), "{}", problem.text);
}

#[test]
fn a_good_pair_is_taken_with_what_it_says() {
    let authority = Authority::new("Test CA");
    let made = authority.server(&["App.example", "*.app.example", "127.0.0.1"]);
    let pair = check(&(made.chain.clone() + &authority.pem), &made.key).unwrap();
    assert_eq!(pair.chain_len(), 2);
    assert_eq!(pair.leaf.server_names(), ["app.example", "*.app.example"]);
    assert_eq!(
        pair.leaf.ips,
        ["127.0.0.1".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(pair.leaf.issuer, "CN=Test CA");
    assert_eq!(pair.leaf.fingerprint().len(), 32 * 3 - 1);
    assert!((88..=90).contains(&pair.leaf.days_left(SystemTime::now())));
    assert!(pair.warnings.is_empty(), "{:?}", pair.warnings);
    assert!(!pair.leaf.expires_soon(SystemTime::now()));
    let late = SystemTime::now() + Duration::from_secs(80 * 86_400);
    assert!(pair.leaf.expires_soon(late) && !pair.leaf.expired(late));
}

#[test]
fn keys_of_every_kind_that_tls_uses() {
    let authority = Authority::new("Test CA");
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let made = authority.leaf_with(&server_params(&["a.example"], -DAY, DAY), &key);
        check(&made.chain, &made.key).unwrap();
    }
}

#[test]
fn a_pair_that_is_no_good_is_refused_with_the_reason() {
    let authority = Authority::new("Test CA");
    let (one, two) = (
        authority.server(&["one.example"]),
        authority.server(&["two.example"]),
    );
    let (chain, key) = (one.chain.as_str(), one.key.as_str());
    let made = |from, to| authority.leaf(&server_params(&["app.example"], from, to));
    let (old, young) = (made(-9 * DAY, -2 * DAY), made(2 * DAY, 9 * DAY));

    use Cause::{Expired, Malformed, Mismatch, NotYetValid, UnusableKey};
    refused(
        chain,
        &two.key,
        Mismatch,
        Part::Key,
        "does not match the certificate (one.example",
    );
    refused(
        &old.chain,
        &old.key,
        Expired,
        Part::Certificate,
        "expired at 2",
    );
    refused(
        &young.chain,
        &young.key,
        NotYetValid,
        Part::Certificate,
        "is this machine's clock right",
    );
    refused(
        &(authority.pem.clone() + chain),
        key,
        Mismatch,
        Part::Certificate,
        "must come first",
    );
    refused("", key, Malformed, Part::Certificate, "is empty");
    refused(chain, "", Malformed, Part::Key, "is empty");
    refused(
        key,
        key,
        Malformed,
        Part::Certificate,
        "has no CERTIFICATE block",
    );
    refused(chain, chain, Malformed, Part::Key, "has no private key");
    refused(
        "hello",
        key,
        Malformed,
        Part::Certificate,
        "has no CERTIFICATE block",
    );
    refused(
        &chain[..chain.len() - 40],
        key,
        Malformed,
        Part::Certificate,
        "cut short",
    );
    refused(
        chain,
        &key[..key.len() - 40],
        Malformed,
        Part::Key,
        "cut short",
    );
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    refused(chain, encrypted, UnusableKey, Part::Key, "is encrypted");
    let legacy = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIB\n-----END EC PRIVATE KEY-----\n";
    refused(chain, legacy, UnusableKey, Part::Key, "is encrypted");
    let nonsense = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n";
    refused(chain, nonsense, UnusableKey, Part::Key, "can't be used");
    let nonsense = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    refused(
        nonsense,
        key,
        Malformed,
        Part::Certificate,
        "certificate 1 is not an X.509 certificate",
    );

    let der = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
    let problem = Pair::check(&der, key.as_bytes(), SystemTime::now(), &default_provider());
    assert!(
        problem
            .unwrap_err()
            .text
            .contains("openssl x509 -inform der")
    );
}

#[test]
fn what_only_some_clients_mind_is_a_warning() {
    let (authority, other) = (Authority::new("Test CA"), Authority::new("Other CA"));
    let made = authority.server(&["app.example"]);
    let warnings = |chain: &str, made: &Made| check(chain, &made.key).unwrap().warnings.join("\n");
    let disordered = warnings(&(made.chain.clone() + &other.pem), &made);
    assert!(
        disordered.contains("is not the issuer of certificate 1"),
        "{disordered}"
    );
    let nameless = authority.leaf(&client_params("", vec![]));
    assert!(warnings(&nameless.chain, &nameless).contains("names no host"));
    let mut params = server_params(&["app.example"], -DAY, DAY);
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let for_clients = authority.leaf(&params);
    assert!(warnings(&for_clients.chain, &for_clients).contains("does not allow servers"));
}

#[test]
fn names_are_written_as_rfc_4514_says() {
    let authority = Authority::new("a, \"b\"+c");
    let mut params = server_params(&[], -DAY, DAY);
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CountryName, "DE");
    subject.push(DnType::OrganizationName, "#Example; Inc ");
    subject.push(DnType::CommonName, "new\nline");
    params.distinguished_name = subject;
    let made = authority.leaf(&params);
    let leaf = check(&made.chain, &made.key).unwrap().leaf;
    assert_eq!(leaf.subject, "CN=new\\0aline,O=\\#Example\\; Inc\\ ,C=DE");
    assert_eq!(leaf.issuer, "CN=a\\, \\\"b\\\"\\+c");
}

#[test]
fn the_self_signed_certificate_is_for_this_machine() {
    let more = vec![
        "app.test".to_owned(),
        "10.1.2.3".to_owned(),
        "*.app.test".to_owned(),
    ];
    let provider = default_provider();
    let pair = super::super::selfsigned::make(&more, SystemTime::now(), &provider).unwrap();
    for name in ["localhost", "app.test", "*.app.test"] {
        assert!(
            pair.leaf.dns.contains(&name.to_owned()),
            "{:?}",
            pair.leaf.dns
        );
    }
    for ip in ["127.0.0.1", "::1", "10.1.2.3"] {
        assert!(
            pair.leaf.ips.contains(&ip.parse().unwrap()),
            "{:?}",
            pair.leaf.ips
        );
    }
    assert!(pair.warnings.is_empty(), "{:?}", pair.warnings);
    assert!(
        super::super::selfsigned::make(&["a b".to_owned()], SystemTime::now(), &provider).is_err()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A file that is being written is seen at any length, and one that is damaged anywhere: never a panic, and never
    /// another certificate than the one that was meant.
    #[test]
    fn a_torn_or_damaged_pair_is_refused_or_whole(cut in 0usize..2000, at in 0usize..2000, bit in 0u8..8) {
        thread_local!(static MADE: Made = Authority::new("CA").server(&["a.example"]));
        MADE.with(|made| {
            let whole = check(&made.chain, &made.key).unwrap();
            let cut = cut.min(made.chain.len());
            if let Ok(pair) = check(&made.chain[..cut], &made.key) {
                prop_assert_eq!(&pair.leaf, &whole.leaf);
            }
            let mut damaged = made.chain.clone().into_bytes();
            let at = at % damaged.len();
            damaged[at] ^= 1 << bit;
            // The signature is the client's to check: only what is read here must hold.
            drop(Pair::check(&damaged, made.key.as_bytes(), SystemTime::now(), &default_provider()));
            Ok(())
        })?;
    }

    /// A client's certificate is foreign bytes: whatever they are, reading them ends, and what is read is safe to log and to
    /// put into a header.
    #[test]
    fn damaged_der_is_read_or_refused(changes in proptest::collection::vec((0usize..700, any::<u8>()), 1..8), cut in 0usize..900) {
        thread_local!(static DER: Vec<u8> = {
            let made = Authority::new("CA").server(&["a.example", "10.0.0.1"]);
            CertificateDer::from_pem_slice(made.chain.as_bytes()).unwrap().to_vec()
        });
        let mut der = DER.with(Vec::clone);
        for (at, byte) in changes {
            let at = at % der.len();
            der[at] = byte;
        }
        der.truncate(cut.max(1));
        if let Ok(certificate) = Certificate::from_der(&der) {
            let value = forwarded_client_cert(&certificate);
            prop_assert!(value.bytes().all(|b| (b' '..=b'~').contains(&b)), "{}", value);
        }
    }
}
