use std::time::SystemTime;

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use rustls::HandshakeKind;

use super::*;

struct Mutual {
    server_ca: Authority,
    client_ca: Authority,
    files: Files,
}

impl Mutual {
    fn new() -> Self {
        let mutual = Self {
            server_ca: Authority::new("Server CA"),
            client_ca: Authority::new("Client CA"),
            files: Files::new(),
        };
        mutual
            .files
            .pair("tls", &mutual.server_ca.server(&["a.example"]));
        mutual.files.write("ca.pem", &mutual.client_ca.pem);
        mutual
    }

    fn server(&self, more: &[(&str, &str)]) -> (ServerTls, Registry) {
        let path = |name| shown(&self.files.path(name));
        let (cert, key, ca) = (path("tls.crt"), path("tls.key"), path("ca.pem"));
        let mut flags = vec![("cert", cert.as_str()), ("key", &key), ("client-ca", &ca)];
        flags.extend_from_slice(more);
        server(&flags)
    }

    fn client(&self, made: &Made) -> Arc<ClientConfig> {
        Arc::new(client_with(self.server_ca.roots(), made))
    }

    fn named(&self, name: &str) -> Arc<ClientConfig> {
        let dns = SanType::DnsName(name.try_into().unwrap());
        self.client(&self.client_ca.leaf(&client_params(name, vec![dns])))
    }
}

fn joins(tls: &ServerTls, client: &Arc<ClientConfig>) -> Result<Option<String>, Reason> {
    let joined = handshake(tls, client, "a.example").map_err(|error| Reason::of(&error))?;
    let client = tls.accepted(&joined.server)?;
    Ok(client.and_then(|client| client.common_name))
}

#[test]
fn a_client_must_show_a_certificate_of_the_authority() {
    let mutual = Mutual::new();
    let (tls, _) = mutual.server(&[]);
    assert_eq!(
        joins(&tls, &mutual.named("web")),
        Ok(Some("web".to_owned()))
    );
    let nobody = Arc::new(client(mutual.server_ca.roots()));
    assert_eq!(joins(&tls, &nobody), Err(Reason::ClientCertificateMissing));
    let stranger = Authority::new("Other").leaf(&client_params("web", vec![]));
    assert_eq!(
        joins(&tls, &mutual.client(&stranger)),
        Err(Reason::ClientCertificateUntrusted)
    );
    let mut params = client_params("web", vec![]);
    time_of::valid(&mut params, &at(-9 * DAY), &at(-DAY));
    let expired = mutual.client(&mutual.client_ca.leaf(&params));
    assert_eq!(joins(&tls, &expired), Err(Reason::ClientCertificateExpired));
}

#[test]
fn optional_lets_in_who_shows_nothing_and_refuses_who_shows_something_wrong() {
    let mutual = Mutual::new();
    let (tls, _) = mutual.server(&[("client-auth", "optional"), ("allow-cn", "web")]);
    let nobody = Arc::new(client(mutual.server_ca.roots()));
    assert_eq!(joins(&tls, &nobody), Ok(None));
    assert_eq!(
        joins(&tls, &mutual.named("web")),
        Ok(Some("web".to_owned()))
    );
    assert_eq!(
        joins(&tls, &mutual.named("mail")),
        Err(Reason::ClientCertificateNotAllowed)
    );
}

#[test]
fn rules_choose_among_the_authoritys_clients_and_judge_resumed_sessions_too() {
    let mutual = Mutual::new();
    let (tls, _) = mutual.server(&[("allow-san", "*.shop.svc"), ("allow-cn", "admin")]);
    let web = mutual.named("web.shop.svc");
    assert_eq!(joins(&tls, &web), Ok(Some("web.shop.svc".to_owned())));
    assert_eq!(
        joins(&tls, &mutual.named("admin")),
        Ok(Some("admin".to_owned()))
    );
    assert_eq!(
        joins(&tls, &mutual.named("web.mail.svc")),
        Err(Reason::ClientCertificateNotAllowed)
    );

    let resumed = handshake(&tls, &web, "a.example").unwrap();
    assert_eq!(
        resumed.server.handshake_kind(),
        Some(HandshakeKind::Resumed)
    );
    assert!(
        tls.admit(&resumed.server, SystemTime::now())
            .unwrap()
            .is_some()
    );
    // Its certificate expires while its ticket still works.
    let later = SystemTime::now() + Duration::from_secs(2 * 86_400);
    assert_eq!(
        tls.admit(&resumed.server, later),
        Err(Reason::ClientCertificateExpired)
    );
    // The same session under other rules.
    let (other, _) = mutual.server(&[("allow-cn", "admin")]);
    let now = SystemTime::now();
    assert_eq!(
        other.admit(&resumed.server, now),
        Err(Reason::ClientCertificateNotAllowed)
    );
}

#[test]
fn no_ticket_outlives_a_change_of_the_authorities() {
    let mutual = Mutual::new();
    let (tls, registry) = mutual.server(&[]);
    let web = mutual.named("web");
    joins(&tls, &web).unwrap();
    let resumed = handshake(&tls, &web, "a.example").unwrap();
    assert_eq!(
        resumed.server.handshake_kind(),
        Some(HandshakeKind::Resumed)
    );

    mutual.files.write("ca.pem", &Authority::new("New CA").pem);
    assert_eq!(tls.reload(), Ok(true));
    let error = handshake(&tls, &web, "a.example").err().unwrap();
    assert_eq!(
        Reason::of(&error),
        Reason::ClientCertificateUntrusted,
        "{error}"
    );

    // What is no bundle leaves the authorities as they are.
    mutual.files.write("ca.pem", "nothing");
    let why = tls.reload().unwrap_err();
    assert!(why.contains("ca.pem has no CERTIFICATE block"), "{why}");
    assert_eq!(tls.view().authorities[0].subject, "CN=New CA");
    let text = metrics(&registry);
    let refused = "podkit_tls_certificate_refused{name=\"client-ca\",reason=\"malformed\"} 1";
    assert!(text.contains(refused), "{text}");
    mutual.files.write("ca.pem", &mutual.client_ca.pem);
    assert_eq!(tls.reload(), Ok(true));
    assert_eq!(joins(&tls, &web), Ok(Some("web".to_owned())));
}

fn revoke(authority: &Authority, serials: &[u64], until: i64) -> String {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let when = |seconds: i64| epoch + Duration::from_secs(at(seconds).0);
    let revoked = serials.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: when(-DAY),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: when(-2 * DAY),
        next_update: when(until),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params
        .signed_by(&authority.issuer())
        .unwrap()
        .pem()
        .unwrap()
}

#[test]
fn a_revoked_client_is_refused_and_the_list_is_read_again() {
    let mutual = Mutual::new();
    let with_serial = |serial: u64| {
        let mut params = client_params("web", vec![]);
        params.serial_number = Some(SerialNumber::from(serial));
        mutual.client(&mutual.client_ca.leaf(&params))
    };
    let (seven, eight) = (with_serial(7), with_serial(8));
    mutual
        .files
        .write("crl.pem", &revoke(&mutual.client_ca, &[7], DAY));
    let crl = shown(&mutual.files.path("crl.pem"));
    let (tls, _) = mutual.server(&[("client-crl", &crl)]);
    assert_eq!(joins(&tls, &seven), Err(Reason::ClientCertificateRevoked));
    assert!(joins(&tls, &eight).is_ok());
    assert!(tls.view().crl_until.is_some());
    // Revoked now: its ticket is of no use any more.
    mutual
        .files
        .write("crl.pem", &revoke(&mutual.client_ca, &[7, 8], DAY));
    assert_eq!(tls.reload(), Ok(true));
    assert_eq!(joins(&tls, &eight), Err(Reason::ClientCertificateRevoked));
    mutual
        .files
        .write("crl.pem", &revoke(&mutual.client_ca, &[], -1));
    let why = tls.reload().unwrap_err();
    assert!(why.contains("crl.pem holds a list that ran out"), "{why}");
    assert_eq!(joins(&tls, &eight), Err(Reason::ClientCertificateRevoked));
}

#[test]
fn rules_without_an_authority_are_refused_at_start() {
    for (flag, value) in [
        ("allow-san", "a.example"),
        ("allow-cn", "a"),
        ("client-crl", "/none"),
        ("client-auth", "optional"),
    ] {
        let line = start_error(&[("self-signed", "true"), (flag, value)]);
        assert!(
            line.starts_with(&format!("--{flag} (")) && line.contains("needs --client-ca"),
            "{line}"
        );
    }
    let line = start_error(&[("self-signed", "true"), ("client-ca", "/none/ca.pem")]);
    assert_eq!(
        line,
        "--client-ca (PODKIT_CLIENT_CA): /none/ca.pem does not exist"
    );
}
