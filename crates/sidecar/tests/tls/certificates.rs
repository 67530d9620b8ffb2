use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use podkit_testkit::certs::{Authority, Pair};
use podkit_testkit::http::exchange;
use podkit_testkit::tls::{Client, Options, der, shown_certificate};
use podkit_testkit::until;

use super::*;

fn trusting(authority: &Authority) -> Client {
    Client::new(&Options {
        authority: Some(authority),
        ..Options::default()
    })
}

fn serves(tls: &Tls, client: &Client, name: &str, pair: &Pair) -> bool {
    let stream = client.connect(tls.addr, name);
    stream.is_ok_and(|stream| shown_certificate(&stream) == der(&pair.cert))
}

#[test]
fn the_name_chooses_and_a_connection_without_one_gets_the_first() {
    let (authority, dir) = (Authority::new("CA"), tempfile::tempdir().unwrap());
    let (one, two) = (
        authority.server(&["one.example", "127.0.0.1"]),
        authority.server(&["*.two.example"]),
    );
    let flags: Vec<(&str, String)> = [&one, &two]
        .iter()
        .enumerate()
        .flat_map(|(at, pair)| {
            let (cert, key) = pair.write(dir.path(), &at.to_string());
            [
                ("cert", cert.display().to_string()),
                ("key", key.display().to_string()),
            ]
        })
        .collect();
    let flags: Vec<(&str, &str)> = flags
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let tls = Tls::start(App::start().addr, &flags);
    let client = trusting(&authority);
    assert!(serves(&tls, &client, "one.example", &one));
    assert!(serves(&tls, &client, "www.two.example", &two));
    assert!(
        serves(&tls, &client, "127.0.0.1", &one),
        "an address sends no SNI"
    );
    assert!(serves(&tls, &Client::trusting(), "unknown.example", &one));
}

#[test]
fn a_mismatch_keeps_the_old_pair_and_says_why_until_it_is_put_right() {
    let (authority, dir) = (Authority::new("CA"), tempfile::tempdir().unwrap());
    let old = authority.server(&["app.example"]);
    old.write(dir.path(), "tls");
    let path = dir.path().display().to_string();
    let tls = Tls::start(App::start().addr, &[("cert-dir", &path)]);
    let client = trusting(&authority);
    let mut open = client.connect(tls.addr, "app.example").unwrap();

    let new = authority.server(&["app.example"]);
    new.mismatched().write(dir.path(), "tls");
    let alert = until("the refusal on the page", || tls.alert());
    assert!(
        alert.contains("tls.key the private key does not match"),
        "{alert}"
    );
    let refused = "podkit_tls_certificate_refused{name=\"tls\",reason=\"mismatch\"}";
    tls.metric_becomes(refused, 1.0);
    assert!(serves(&tls, &client, "app.example", &old));
    assert!(tls.reload().unwrap_err().contains("does not match"));
    assert!(
        tls.checks().iter().all(|(_, check)| check.is_ok()),
        "it still serves"
    );

    new.write(dir.path(), "tls");
    until("the new pair", || {
        serves(&tls, &client, "app.example", &new).then_some(())
    });
    assert_eq!(tls.alert(), None);
    assert!(!tls.metrics().contains(refused));
    assert_eq!(tls.reload(), Ok(()));
    let answer = exchange(&mut open, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(answer.status, 200, "a connection that was open before both");

    authority.expired(&["app.example"]).write(dir.path(), "tls");
    assert!(
        tls.reload()
            .unwrap_err()
            .contains("tls.crt expired at 2020-01-01T00:00:00Z")
    );
    assert!(serves(&tls, &client, "app.example", &new));
}

/// A version as the kubelet writes it: a new directory, then `..data` renamed over.
fn publish(dir: &Path, version: u32, pair: &Pair) {
    let real = dir.join(format!("..v{version}"));
    std::fs::create_dir(&real).unwrap();
    std::fs::write(real.join("tls.crt"), &pair.cert).unwrap();
    std::fs::write(real.join("tls.key"), &pair.key).unwrap();
    symlink(format!("..v{version}"), dir.join("..data_tmp")).unwrap();
    std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    if version == 0 {
        for name in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{name}"), dir.join(name)).unwrap();
        }
    } else {
        std::fs::remove_dir_all(dir.join(format!("..v{}", version - 1))).unwrap();
    }
}

#[test]
fn no_request_fails_over_a_hundred_reloads_under_load() {
    let (authority, dir) = (Authority::new("CA"), tempfile::tempdir().unwrap());
    let pairs = [
        authority.server(&["app.example"]),
        authority.server(&["app.example"]),
    ];
    publish(dir.path(), 0, &pairs[0]);
    let path = dir.path().display().to_string();
    let tls = Tls::start(App::start().addr, &[("cert-dir", &path)]);

    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    // One keeps its connection, two come anew for each request, one of them with tickets.
    let load: Vec<JoinHandle<()>> = (0..3)
        .map(|kind| {
            let client = Client::new(&Options {
                authority: Some(&authority),
                resume: kind == 2,
                ..Options::default()
            });
            let (addr, stop, done) = (tls.addr, Arc::clone(&stop), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut kept = client.connect(addr, "app.example").unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let status = match kind {
                        0 => {
                            exchange(&mut kept, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                                .unwrap()
                                .status
                        }
                        _ => client.get(addr, "app.example", "/").unwrap().status,
                    };
                    assert_eq!(status, 200);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for version in 1..=100 {
        publish(dir.path(), version, &pairs[version as usize % 2]);
        assert_eq!(tls.reload(), Ok(()), "version {version}");
        let enough = u64::from(version) * 5;
        until("requests between the reloads", || {
            (done.load(Ordering::Relaxed) >= enough).then_some(())
        });
    }
    stop.store(true, Ordering::Relaxed);
    for thread in load {
        thread.join().expect("no request failed");
    }
    assert!(serves(
        &tls,
        &trusting(&authority),
        "app.example",
        &pairs[0]
    ));
    let changed = tls.metric("podkit_tls_certificate_reloads_total{result=\"changed\"}");
    assert!(changed >= 100.0, "{changed}");
    assert!(tls.metric("podkit_tls_certificate_reloads_total{result=\"refused\"}") < 1.0);
    assert!(tls.metric("podkit_tls_handshakes_total{version=\"1.3\",resumed=\"true\"}") > 0.0);
}

#[test]
fn old_versions_are_a_choice() {
    let (authority, dir) = (Authority::new("CA"), tempfile::tempdir().unwrap());
    authority.server(&["app.example"]).write(dir.path(), "tls");
    let path = dir.path().display().to_string();
    let old = Client::new(&Options {
        authority: Some(&authority),
        tls12_only: true,
        ..Options::default()
    });
    let tls = Tls::start(App::start().addr, &[("cert-dir", &path)]);
    assert_eq!(old.get(tls.addr, "app.example", "/").unwrap().status, 200);
    let tls = Tls::start(
        App::start().addr,
        &[("cert-dir", &path), ("min-version", "1.3")],
    );
    old.get(tls.addr, "app.example", "/").unwrap_err();
    tls.metric_becomes(
        "podkit_tls_handshake_failures_total{reason=\"version\"}",
        1.0,
    );
    assert_eq!(
        trusting(&authority)
            .get(tls.addr, "app.example", "/")
            .unwrap()
            .status,
        200
    );
}
