use podkit_testkit::certs::{Authority, Pair, replace};
use podkit_testkit::http::Response;
use podkit_testkit::tls::{Client, Options};

use super::*;

struct Mutual {
    servers: Authority,
    clients: Authority,
    dir: tempfile::TempDir,
}

impl Mutual {
    fn new() -> Self {
        let (servers, clients) = (Authority::new("Server CA"), Authority::new("Client CA"));
        let dir = tempfile::tempdir().unwrap();
        servers.server(&["app.example"]).write(dir.path(), "tls");
        replace(&dir.path().join("clients.pem"), &clients.pem());
        Self {
            servers,
            clients,
            dir,
        }
    }

    fn start(&self, more: &[(&str, &str)]) -> Tls {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let (cert, key, ca) = (path("tls.crt"), path("tls.key"), path("clients.pem"));
        let mut flags = vec![("cert", cert.as_str()), ("key", &key), ("client-ca", &ca)];
        flags.extend_from_slice(more);
        Tls::start(App::start().addr, &flags)
    }

    fn get(&self, tls: &Tls, certificate: Option<&Pair>) -> std::io::Result<Response> {
        let client = Client::new(&Options {
            authority: Some(&self.servers),
            certificate,
            ..Options::default()
        });
        client.get(tls.addr, "app.example", "/")
    }
}

#[test]
fn the_application_learns_which_client_it_is() {
    let mutual = Mutual::new();
    let tls = mutual.start(&[]);
    let web = mutual.clients.client("web", &["web.shop.svc"]);
    let seen = fields(&mutual.get(&tls, Some(&web)).unwrap().text());
    let told = &seen["x-forwarded-client-cert"];
    assert!(
        told.starts_with("Hash=") && told.ends_with(";Subject=\"CN=web\";DNS=web.shop.svc"),
        "{told}"
    );
    mutual.get(&tls, None).unwrap_err();
    let stranger = Authority::new("Other").client("web", &[]);
    mutual.get(&tls, Some(&stranger)).unwrap_err();
    tls.metric_becomes(
        "podkit_tls_handshake_failures_total{reason=\"client_certificate_missing\"}",
        1.0,
    );
    tls.metric_becomes(
        "podkit_tls_handshake_failures_total{reason=\"client_certificate_untrusted\"}",
        1.0,
    );
}

#[test]
fn rules_let_in_some_of_the_authoritys_clients() {
    let mutual = Mutual::new();
    let tls = mutual.start(&[("allow-san", "*.shop.svc"), ("allow-cn", "admin")]);
    let client = |name: &str, names: &[&str]| mutual.clients.client(name, names);
    assert_eq!(
        mutual
            .get(&tls, Some(&client("x", &["web.shop.svc"])))
            .unwrap()
            .status,
        200
    );
    assert_eq!(
        mutual
            .get(&tls, Some(&client("admin", &[])))
            .unwrap()
            .status,
        200
    );
    mutual
        .get(&tls, Some(&client("x", &["web.mail.svc"])))
        .unwrap_err();
    tls.metric_becomes(
        "podkit_tls_handshake_failures_total{reason=\"client_certificate_not_allowed\"}",
        1.0,
    );
    let page = tls.page();
    let clients = page
        .iter()
        .find(|section| section.title == "Clients")
        .unwrap();
    assert!(
        clients.rows.iter().any(|row| row[1] == "*.shop.svc, admin"),
        "{clients:?}"
    );
}

#[test]
fn optional_certificates_are_told_where_they_are() {
    let mutual = Mutual::new();
    let tls = mutual.start(&[("client-auth", "optional")]);
    let without = fields(&mutual.get(&tls, None).unwrap().text());
    assert!(!without.contains_key("x-forwarded-client-cert"));
    let with = fields(
        &mutual
            .get(&tls, Some(&mutual.clients.client("web", &[])))
            .unwrap()
            .text(),
    );
    assert!(with.contains_key("x-forwarded-client-cert"));
}

#[test]
fn the_authorities_change_live() {
    let mutual = Mutual::new();
    let tls = mutual.start(&[]);
    let fresh = Authority::new("New CA");
    let client = fresh.client("web", &[]);
    mutual.get(&tls, Some(&client)).unwrap_err();
    replace(&mutual.dir.path().join("clients.pem"), &fresh.pem());
    podkit_testkit::until("the new authority", || mutual.get(&tls, Some(&client)).ok());
    mutual
        .get(&tls, Some(&mutual.clients.client("web", &[])))
        .unwrap_err();
}
