//! Upstreams that speak TLS: real nginx, whose certificate must be right, and which lets in only who shows one.

use std::net::SocketAddr;

use podkit_testkit::certs::{Authority, replace};
use podkit_testkit::net::free_addr;
use podkit_testkit::peers::{Server, nginx};
use podkit_testkit::podkit::Module;
use podkit_testkit::{Need, Turn, able, http, until};

/// An nginx for `app.test` that lets in clients of an authority of its own, and says what it sees of them.
struct Secure {
    addr: SocketAddr,
    clients: Authority,
    dir: tempfile::TempDir,
    _nginx: Server,
}

impl Secure {
    /// None when the machine lacks nginx.
    fn start() -> Option<Self> {
        if !able(&[Need::Program("nginx")]) {
            return None;
        }
        let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
        let dir = tempfile::tempdir().unwrap();
        replace(&dir.path().join("servers.pem"), &servers.pem());
        replace(&dir.path().join("clients.pem"), &clients.pem());
        clients.client("balance", &[]).write(dir.path(), "client");
        let addr = free_addr();
        let server = format!(
            "server {{ listen {addr} ssl; ssl_certificate DIR/server.crt; ssl_certificate_key DIR/server.key;
             ssl_client_certificate {}/clients.pem; ssl_verify_client on;
             location / {{ return 200 '$ssl_client_s_dn $ssl_server_name'; }} }}",
            dir.path().display()
        );
        let nginx = nginx(&server, Some(&servers.server(&["app.test"])), addr, None);
        Some(Self {
            addr,
            clients,
            dir,
            _nginx: nginx,
        })
    }

    /// A balance in front of it, by this name.
    fn balance(&self, name: &str, files: &[&str]) -> (Module, SocketAddr) {
        let listen = free_addr();
        let dir = self.dir.path().display();
        let mut args = vec![
            format!("--listen={listen}"),
            format!("--upstream=https://{}{name}", self.addr),
            "--ready=off".to_owned(),
            "--workers=1".to_owned(),
        ];
        args.extend(
            files
                .iter()
                .map(|flag| flag.replace("DIR", &dir.to_string())),
        );
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        (Module::start("balance", &args, &[]), listen)
    }
}

const CA: &str = "--upstream-ca=DIR/servers.pem";
const PAIR: [&str; 2] = [
    "--upstream-cert=DIR/client.crt",
    "--upstream-key=DIR/client.key",
];

#[test]
fn an_upstream_is_verified_and_shown_our_certificate() {
    let _turn = Turn::shared();
    let Some(secure) = Secure::start() else {
        return;
    };
    let flags = [CA, PAIR[0], PAIR[1]];
    let (balance, listen) = secure.balance(";server-name=app.test", &flags);
    for _ in 0..3 {
        let answer = http::get(listen, "/").unwrap();
        assert_eq!(answer.text(), "CN=balance app.test");
    }
    assert_eq!(
        balance.metric("podkit_upstream_connections_total{result=\"opened\"}"),
        Some(1.0),
        "they share a connection"
    );
    // A new pair is shown without a restart, and the connection that was opened with the former gets no more requests.
    let fresh = secure.clients.client("renewed", &[]);
    fresh.write(secure.dir.path(), "client");
    until("the new certificate is shown", || {
        let answer = http::get(listen, "/").unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        (answer.text() == "CN=renewed app.test").then_some(())
    });
}

/// What the client is told, and that nothing reached the application.
fn refused(listen: SocketAddr, what: &str) {
    let answer = http::get(listen, "/").unwrap();
    assert_eq!(answer.status, 502, "{what}: {}", answer.text());
    assert_eq!(
        answer.text(),
        "the upstream can't be trusted by TLS\n",
        "{what}"
    );
}

#[test]
fn an_upstream_of_another_name_or_authority_gets_nothing() {
    let _turn = Turn::shared();
    let Some(secure) = Secure::start() else {
        return;
    };
    let flags = [CA, PAIR[0], PAIR[1]];
    let (_one, listen) = secure.balance(";server-name=other.test", &flags);
    refused(listen, "another name");
    // An address is a name too, which the certificate does not have.
    let (_two, listen) = secure.balance("", &flags);
    refused(listen, "an address");
    let other = Authority::new("others");
    replace(&secure.dir.path().join("others.pem"), &other.pem());
    let flags = ["--upstream-ca=DIR/others.pem", PAIR[0], PAIR[1]];
    let (_three, listen) = secure.balance(";server-name=app.test", &flags);
    refused(listen, "another authority");
    let (_four, listen) = secure.balance(";server-name=app.test", &PAIR);
    refused(listen, "the system's authorities");
}

#[test]
fn without_a_certificate_the_upstream_says_so_itself() {
    let _turn = Turn::shared();
    let Some(secure) = Secure::start() else {
        return;
    };
    let (_balance, listen) = secure.balance(";server-name=app.test", &[CA]);
    let answer = http::get(listen, "/").unwrap();
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(
        answer
            .text()
            .contains("No required SSL certificate was sent"),
        "{}",
        answer.text()
    );
}
