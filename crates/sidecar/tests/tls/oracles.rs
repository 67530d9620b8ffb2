//! Clients that others wrote; where one is not installed its test says so and passes.

use std::process::{Command, Stdio};

use podkit_testkit::certs::{Authority, replace};

use super::*;

fn run(program: &str, args: &[&str]) -> Option<String> {
    if podkit_testkit::program(program).is_none() {
        eprintln!("skipped: {program} is not installed");
        return None;
    }
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn openssl_verifies_resumes_and_shows_a_client_certificate() {
    let (authority, dir) = (Authority::new("CA"), tempfile::tempdir().unwrap());
    let path = |name: &str| dir.path().join(name).display().to_string();
    authority.server(&["app.example"]).write(dir.path(), "tls");
    authority.client("web", &[]).write(dir.path(), "web");
    replace(&dir.path().join("ca.pem"), &authority.pem());
    let (cert, key, ca) = (path("tls.crt"), path("tls.key"), path("ca.pem"));
    let tls = Tls::start(
        App::start().addr,
        &[("cert", &cert), ("key", &key), ("client-ca", &ca)],
    );
    let addr = tls.addr.to_string();
    let (session, web, web_key) = (path("session"), path("web.crt"), path("web.key"));
    for version in ["-tls1_2", "-tls1_3"] {
        let common = [
            "s_client",
            "-connect",
            &addr,
            "-servername",
            "app.example",
            "-verify_return_error",
            "-CAfile",
            &ca,
        ];
        let client = ["-cert", &web, "-key", &web_key, version];
        let first = [&common[..], &client, &["-sess_out", &session]].concat();
        let Some(text) = run("openssl", &first) else {
            return;
        };
        assert!(
            text.contains("Verify return code: 0 (ok)"),
            "{version}: {text}"
        );
        if version == "-tls1_2" {
            let again = [&common[..], &client, &["-sess_in", &session]].concat();
            let text = run("openssl", &again).unwrap();
            assert!(text.contains("Reused, TLSv1.2"), "{text}");
        }
    }
    tls.metric_becomes(
        "podkit_tls_handshakes_total{version=\"1.2\",resumed=\"true\"}",
        1.0,
    );
    let bare = ["s_client", "-connect", &addr, "-tls1_2", "-CAfile", &ca];
    let text = run("openssl", &bare).unwrap();
    assert!(
        text.contains("alert"),
        "a client without a certificate: {text}"
    );
}

#[test]
fn curl_gets_an_answer_by_name_and_by_redirect() {
    let (authority, dir) = (Authority::new("CA"), tempfile::tempdir().unwrap());
    authority.server(&["app.example"]).write(dir.path(), "tls");
    let ca = dir.path().join("ca.pem");
    replace(&ca, &authority.pem());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (cert, key) = (path("tls.crt"), path("tls.key"));
    let from = free_addr();
    let tls = Tls::start(
        App::start().addr,
        &[
            ("cert", &cert),
            ("key", &key),
            ("redirect-from", &from.to_string()),
        ],
    );
    let (http, https) = (from.port(), tls.addr.port());
    let ca = ca.display().to_string();
    let resolve = [
        "--resolve".to_owned(),
        format!("app.example:{http}:127.0.0.1"),
        "--resolve".to_owned(),
        format!("app.example:{https}:127.0.0.1"),
    ];
    let url = format!("http://app.example:{http}/a?b");
    let mut args = vec!["-sS", "-L", "--cacert", &ca, "--max-time", "10", &url];
    args.extend(resolve.iter().map(String::as_str));
    let Some(text) = run("curl", &args) else {
        return;
    };
    assert!(text.starts_with("GET /a?b HTTP/1.1\r\n"), "{text}");
    assert_eq!(fields(&text)["x-forwarded-proto"], "https");
}
