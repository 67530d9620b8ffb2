use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn a_start_is_refused_with_the_parameter_the_file_and_the_reason() {
    let (authority, files) = (Authority::new("CA"), Files::new());
    files.pair("a", &authority.server(&["a.example"]));
    files.pair("b", &authority.server(&["b.example"]));
    let path = |name: &str| shown(&files.path(name));
    let (a, a_key, b_key) = (path("a.crt"), path("a.key"), path("b.key"));

    let none = start_error(&[]);
    assert!(
        none.starts_with("--cert (PODKIT_CERT): no certificate is given; expected --cert"),
        "{none}"
    );
    let line = start_error(&[("cert", &a), ("key", &b_key)]);
    let expected = format!(
        "--key (PODKIT_KEY): {b_key} the private key does not match the certificate (a.example,"
    );
    assert!(line.starts_with(&expected), "{line}");
    let line = start_error(&[("cert", "/none/a.crt"), ("key", &a_key)]);
    assert_eq!(line, "--cert (PODKIT_CERT): /none/a.crt does not exist");
    let line = start_error(&[("cert", &a), ("cert", &a), ("key", &a_key)]);
    assert!(line.contains("1 given for 2 of --cert"), "{line}");
    let line = start_error(&[("cert", &a), ("key", &a_key), ("self-signed", "true")]);
    assert!(
        line.starts_with("--self-signed (PODKIT_SELF_SIGNED): can't go with --cert and --key"),
        "{line}"
    );
    let line = start_error(&[("cert", &a), ("cert", &a)]);
    assert!(line.ends_with("a.crt is given twice"), "{line}");
    let line = start_error(&[("cert", &a)]);
    assert!(line.contains("a.crt has no private key"), "{line}");
    let line = start_error(&[("cert-dir", "/none")]);
    assert_eq!(line, "--cert-dir (PODKIT_CERT_DIR): /none does not exist");
    let line = start_error(&[("cert-dir", &a)]);
    assert!(line.ends_with("a.crt is not a directory"), "{line}");
    let empty = Files::new();
    let line = start_error(&[("cert-dir", &shown(empty.0.path()))]);
    assert!(
        line.contains("holds no pair; expected tls.crt with tls.key"),
        "{line}"
    );
    let line = start_error(&[("cert", &shown(empty.0.path())), ("key", &a_key)]);
    assert!(line.ends_with("is not a file"), "{line}");
    let line = start_error(&[("self-signed-name", "a")]);
    assert!(line.contains("needs --self-signed"), "{line}");
}

#[test]
fn an_unreadable_key_names_its_mode_and_owner() {
    let (authority, files) = (Authority::new("CA"), Files::new());
    files.pair("a", &authority.server(&["a.example"]));
    let key = files.path("a.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&key).is_ok() {
        eprintln!("skipped: this user may read everything");
        return;
    }
    let line = start_error(&[
        ("cert", &shown(&files.path("a.crt"))),
        ("key", &shown(&key)),
    ]);
    assert!(
        line.contains("can't be read by user id") && line.contains("mode 0000"),
        "{line}"
    );
}

#[test]
fn a_half_written_renewal_is_refused_and_taken_when_it_is_whole() {
    let (authority, files) = (Authority::new("CA"), Files::new());
    files.pair("tls", &authority.server(&["old.example"]));
    let (cert, key) = (shown(&files.path("tls.crt")), shown(&files.path("tls.key")));
    let (tls, registry) = server(&[("cert", &cert), ("key", &key)]);
    let browser = Arc::new(client(authority.roots()));
    assert_eq!(tls.reload(), Ok(false));

    let new = authority.server(&["new.example"]);
    files.write("tls.crt", &new.chain);
    let why = tls.reload().unwrap_err();
    assert!(
        why.starts_with(&key) && why.contains("does not match the certificate (new.example"),
        "{why}"
    );
    assert_eq!(served(&tls, &browser, "old.example"), "old.example");
    let view = tls.view();
    assert_eq!(
        (view.refused.len(), view.refused[0].cause),
        (1, Cause::Mismatch)
    );
    // A second look at the same state is no news.
    let since = view.refused[0].since;
    tls.reload().unwrap_err();
    assert_eq!(tls.view().refused[0].since, since);
    let text = metrics(&registry);
    assert!(
        text.contains("podkit_tls_certificate_reloads_total{result=\"refused\"} 1"),
        "{text}"
    );
    let gauge = format!("podkit_tls_certificate_refused{{name=\"{cert}\",reason=\"mismatch\"}} 1");
    assert!(text.contains(&gauge), "{text}");

    files.write("tls.key", &new.key);
    assert_eq!(tls.reload(), Ok(true));
    assert_eq!(served(&tls, &browser, "new.example"), "new.example");
    assert!(tls.view().refused.is_empty());
    let text = metrics(&registry);
    assert!(
        text.contains("podkit_tls_certificate_reloads_total{result=\"changed\"} 1"),
        "{text}"
    );
    assert!(!text.contains("podkit_tls_certificate_refused{"), "{text}");
    let until = tls.view().certificates[0].leaf.not_after;
    assert!(
        text.contains(&format!(
            "certificate_not_after_seconds{{name=\"{cert}\"}} {until}"
        )),
        "{text}"
    );
}

#[test]
fn a_bad_pair_does_not_hold_back_the_others() {
    let (authority, files) = (Authority::new("CA"), Files::new());
    files.pair("a", &authority.server(&["a.example"]));
    files.pair("b", &authority.server(&["b.example"]));
    let (tls, _) = server(&[("cert-dir", &shown(files.0.path()))]);
    let serial = |at: usize| tls.view().certificates[at].leaf.serial.clone();
    let (a, b) = (serial(0), serial(1));

    let expired = authority.leaf(&server_params(&["a.example"], -9 * DAY, -DAY));
    files.pair("a", &expired);
    files.pair("b", &authority.server(&["b.example"]));
    files.write("c.crt", "half");
    let why = tls.reload().unwrap_err();
    assert!(
        why.contains("a.crt expired at") && why.contains("c.crt has no key beside it"),
        "{why}"
    );
    assert_eq!(serial(0), a);
    assert_ne!(serial(1), b);
    assert_eq!(tls.view().certificates.len(), 2);

    fs::remove_file(files.path("c.crt")).unwrap();
    fs::remove_file(files.path("b.crt")).unwrap();
    fs::remove_file(files.path("b.key")).unwrap();
    files.pair("a", &authority.server(&["a.example"]));
    assert_eq!(tls.reload(), Ok(true));
    assert_eq!(tls.view().certificates.len(), 1);

    // Emptied: the last one stays.
    fs::remove_file(files.path("a.crt")).unwrap();
    fs::remove_file(files.path("a.key")).unwrap();
    let why = tls.reload().unwrap_err();
    assert!(why.contains("holds no usable pair any more"), "{why}");
    assert_eq!(tls.view().certificates.len(), 1);
    fs::remove_dir(files.0.path()).unwrap();
    let why = tls.reload().unwrap_err();
    assert!(why.ends_with("does not exist"), "{why}");
    assert_eq!(
        served(&tls, &Arc::new(client(authority.roots())), "a.example"),
        "a.example"
    );
}

#[test]
fn a_directory_is_read_by_the_conventions_of_the_field() {
    let (authority, files) = (Authority::new("CA"), Files::new());
    let made = |name: &str| authority.server(&[name]);
    files.pair("zeta", &made("zeta.example"));
    files.pair("tls", &made("tls.example"));
    files.write("ca.crt", &authority.pem);
    files.write("README", "certbot leaves one");
    files.pair("shop/tls", &made("shop.example"));
    files.pair("shop/extra", &made("extra.example"));
    files.pair("zeta/tls", &made("zeta.test"));
    fs::create_dir(files.path("lost+found")).unwrap();
    files.pair("..2026_01_01/tls", &made("hidden.example"));
    let certbot = made("certbot.example");
    files.write(
        "le/fullchain.pem",
        &(certbot.chain.clone() + &authority.pem),
    );
    files.write("le/privkey.pem", &certbot.key);
    files.write("le/cert.pem", &certbot.chain);
    files.write("le/chain.pem", &authority.pem);
    let bundle = made("bundle.example");
    files.write("bundle.pem", &(bundle.chain + &bundle.key));
    let (tls, _) = server(&[("cert-dir", &shown(files.0.path()))]);
    let names: Vec<(String, String)> = tls
        .view()
        .certificates
        .iter()
        .map(|found| (found.name.clone(), found.leaf.dns[0].clone()))
        .collect();
    let expected = [
        ("tls", "tls.example"),
        ("bundle", "bundle.example"),
        ("zeta", "zeta.example"),
        ("le", "certbot.example"),
        ("shop", "shop.example"),
        ("shop/extra", "extra.example"),
        (&*shown(&files.path("zeta/tls.crt")), "zeta.test"),
    ];
    let expected: Vec<(String, String)> = expected
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect();
    assert_eq!(names, expected);
}

#[test]
fn one_file_may_hold_both() {
    let (authority, files) = (Authority::new("CA"), Files::new());
    let made = authority.server(&["a.example"]);
    let both = shown(&files.write("a.pem", &(made.key + &made.chain)));
    let (tls, _) = server(&[("cert", &both)]);
    assert_eq!(
        served(&tls, &Arc::new(client(authority.roots())), "a.example"),
        "a.example"
    );
}

#[test]
fn the_self_signed_certificate_stays_over_a_reload() {
    let (tls, _) = server(&[("self-signed", "true")]);
    let before = tls.view().certificates[0].leaf.fingerprint();
    assert_eq!(tls.reload(), Ok(false));
    assert_eq!(tls.view().certificates[0].leaf.fingerprint(), before);
    assert_eq!(tls.usable(), Ok(()));
}

#[test]
fn a_self_signed_certificate_serves_until_the_directory_holds_a_pair() {
    let (authority, files) = (Authority::new("CA"), Files::new());
    let dir = shown(files.0.path());
    let flags = [("cert-dir", dir.as_str()), ("self-signed", "true")];
    let (tls, _) = server(&flags);
    let names = || -> Vec<String> {
        tls.view()
            .certificates
            .into_iter()
            .map(|found| found.name)
            .collect()
    };
    let made = tls.view().certificates[0].leaf.fingerprint();
    assert_eq!(names(), ["self-signed"]);
    assert_eq!(tls.reload(), Ok(false));

    let good = authority.server(&["a.example"]);
    files.write("tls.crt", &good.chain);
    files.write("tls.key", &authority.server(&["a.example"]).key);
    assert!(tls.reload().unwrap_err().contains("does not match"));
    assert_eq!(
        (names(), tls.view().certificates[0].leaf.fingerprint()),
        (vec!["self-signed".to_owned()], made)
    );
    assert!(start_error(&flags).contains("does not match"));

    files.write("tls.key", &good.key);
    assert_eq!(tls.reload(), Ok(true));
    assert_eq!(names(), ["tls"]);
    fs::remove_file(files.path("tls.crt")).unwrap();
    fs::remove_file(files.path("tls.key")).unwrap();
    assert!(
        tls.reload()
            .unwrap_err()
            .contains("holds no usable pair any more")
    );
    assert_eq!(names(), ["tls"]);
}
