//! git-sync and config where servers are reached by HTTP proxies only: names that no resolver knows prove it.

use std::fs;
use std::path::Path;

use podkit_testkit::certs::Authority;
use podkit_testkit::git::{Repository, Server};
use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::{self, Module};
use podkit_testkit::process::run;
use podkit_testkit::proxy::Proxy;
use podkit_testkit::{Turn, tls};

/// `me:secret`.
const PASSWORD: &str = "bWU6c2VjcmV0";

fn once(module: &str, args: &[String], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = podkit::command(&[module, "--once"]);
    command.arg(format!("--admin={}", free_addr()));
    command.args(args).envs(variables.iter().copied());
    let done = run(module, &mut command);
    (done.code, done.err)
}

fn args(dir: &Path, url: &str) -> Vec<String> {
    let root = dir.join("root");
    vec![
        format!("--repo={url}"),
        format!("--root={}", root.display()),
        "--ref=main".to_owned(),
    ]
}

#[test]
fn git_is_fetched_by_a_proxy() {
    let _turn = Turn::shared();
    let dir = tempfile::tempdir().unwrap();
    let app = Repository::new(dir.path(), "app");
    app.write("index.html", "one");
    app.publish("one");
    let server = Server::start(dir.path());
    let seen = || fs::read_to_string(dir.path().join("root/app/index.html")).ok();

    // http: the proxy is shown the URL.
    let proxy = Proxy::start(server.addr, Some(PASSWORD));
    let by = format!("http://me:secret@{}", proxy.addr);
    let http = args(dir.path(), "http://git.test/app.git");
    let (code, err) = once("git-sync", &http, &[("HTTP_PROXY", &by)]);
    assert_eq!((code, seen().as_deref()), (Some(0), Some("one")), "{err}");
    let heads = proxy.heads();
    let first = "GET http://git.test/app.git/info/refs?service=git-upload-pack HTTP/1.1\r\n";
    assert!(heads[0].starts_with(first), "{heads:?}");

    // https: a tunnel, whose inside it does not see; by a proxy that is spoken to by TLS itself as well.
    let authority = Authority::new("test");
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, authority.pem()).unwrap();
    let (cert, key) = authority
        .server(&["git.test", "localhost"])
        .write(dir.path(), "server");
    let front = |upstream: String| {
        let listen = free_addr();
        let args = [
            format!("--listen={listen}"),
            format!("--upstream={upstream}"),
            format!("--cert={}", cert.display()),
            format!("--key={}", key.display()),
            "--mode=tcp".to_owned(),
        ];
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        (listen, Module::start("tls", &args, &[]))
    };
    let (secure, _server_front) = front(server.addr.to_string());
    let proxy = Proxy::start(secure, Some(PASSWORD));
    let (proxy_secure, _proxy_front) = front(proxy.addr.to_string());
    let ca = ca.to_str().unwrap();
    let https = args(dir.path(), "https://git.test/app.git");
    for by in [
        format!("me:secret@{}", proxy.addr),
        format!("https://me:secret@localhost:{}", proxy_secure.port()),
    ] {
        fs::remove_dir_all(dir.path().join("root")).unwrap();
        let variables = [("https_proxy", by.as_str()), ("SSL_CERT_FILE", ca)];
        let (code, err) = once("git-sync", &https, &variables);
        assert_eq!(
            (code, seen().as_deref()),
            (Some(0), Some("one")),
            "{by}: {err}"
        );
        let heads = proxy.heads();
        assert_eq!(heads.len(), 1, "{heads:?}");
        assert!(
            heads[0].starts_with("CONNECT git.test:443 HTTP/1.1\r\n"),
            "{heads:?}"
        );
    }

    let check = |variables: &[(&str, &str)], code: i32, expected: &str| {
        let found = once(
            "git-sync",
            &https,
            &[variables, &[("SSL_CERT_FILE", ca)]].concat(),
        );
        assert!(
            found.0 == Some(code) && found.1.contains(expected),
            "{variables:?}: {found:?}"
        );
        assert!(!found.1.contains("secret"), "{}", found.1);
    };
    let by = format!("http://me:secret-wrong@{}", proxy.addr);
    let said = format!(
        "the proxy http://{}: no tunnel to git.test:443: it answers 407",
        proxy.addr
    );
    check(&[("HTTPS_PROXY", &by)], 1, &said);
    let nowhere = free_addr();
    let by = format!("http://{nowhere}");
    check(
        &[("HTTPS_PROXY", &by)],
        1,
        &format!("the proxy http://{nowhere}: {nowhere}: Connection refused"),
    );
    // Left out, the name is looked up here, where nobody knows it.
    check(
        &[("HTTPS_PROXY", &by), ("NO_PROXY", "x, .test")],
        1,
        "connecting to git.test: ",
    );
    check(
        &[("HTTPS_PROXY", "socks5://me:secret@p")],
        2,
        "HTTPS_PROXY: socks5:// is not spoken",
    );
}

#[test]
fn configuration_is_had_by_a_proxy() {
    let _turn = Turn::shared();
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("test");
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, authority.pem()).unwrap();
    let (cert, key) = authority
        .server(&["config.test"])
        .write(dir.path(), "server");
    let echo = free_addr();
    let _echo = Module::start("echo", &[&format!("--listen={echo}")], &[]);
    let secure = free_addr();
    let listen = format!("--listen={secure}");
    let upstream = format!("--upstream={echo}");
    let pair = [
        format!("--cert={}", cert.display()),
        format!("--key={}", key.display()),
    ];
    let _tls = Module::start("tls", &[&listen, &upstream, &pair[0], &pair[1]], &[]);
    tls::Client::trusting()
        .get(secure, "config.test", "/")
        .unwrap();
    let out = dir.path().join("out");
    for (scheme, target, head) in [
        ("http", echo, "GET http://config.test:80/a HTTP/1.1\r\n"),
        ("https", secure, "CONNECT config.test:443 HTTP/1.1\r\n"),
    ] {
        let proxy = Proxy::start(target, Some(PASSWORD));
        let by = format!("http://me:secret@{}", proxy.addr);
        let args = [
            format!("--source={scheme}://config.test/a"),
            format!("--out={}", out.display()),
            format!("--ca={}", ca.display()),
        ];
        let (code, err) = once("config", &args, &[("ALL_PROXY", &by)]);
        assert_eq!(code, Some(0), "{scheme}: {err}");
        let heads = proxy.heads();
        assert!(heads[0].starts_with(head), "{heads:?}");
        let named = [("ALL_PROXY", by.as_str()), ("NO_PROXY", "config.test")];
        // What is published stays; of the proxy nothing is asked.
        let (_, err) = once(
            "config",
            &[&args[..], &["--once-timeout=1s".to_owned()]].concat(),
            &named,
        );
        assert!(
            err.contains("(config.test: no such host)") && proxy.heads().is_empty(),
            "{err}"
        );
    }
    let wrong = [("HTTP_PROXY", "ftp://p")];
    let (code, err) = once(
        "config",
        &[
            format!("--out={}", out.display()),
            "--source=http://config.test/a".to_owned(),
        ],
        &wrong,
    );
    assert_eq!(
        (code, err.trim_end()),
        (
            Some(2),
            "podkit config: HTTP_PROXY: ftp:// is not spoken; expected http://HOST:PORT or https://HOST:PORT"
        )
    );
}
