use std::os::unix::fs::symlink;

use super::*;
use crate::watch::{Interest, places};

/// A change on disk, and the name that must be served after it.
type Step = (Box<dyn FnOnce()>, &'static str);

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test);
}

/// That this name has a certificate.
fn has(tls: &ServerTls, name: &str) -> bool {
    let view = tls.view();
    let mut names = view.certificates.iter().map(|found| &found.leaf.dns[0]);
    names.any(|found| found == name)
}

/// Starts the watch, takes step after step.
fn watched(flags: &[(&str, &str)], authority: &Authority, steps: Vec<Step>) {
    run(async {
        let (tls, _) = server(flags);
        let browser = Arc::new(client(authority.roots()));
        let mut watch = Box::pin(tls.clone().watch());
        eventually("the first look", &mut watch, || true).await;
        for (step, expected) in steps {
            step();
            eventually(expected, &mut watch, || has(&tls, expected)).await;
            assert_eq!(served(&tls, &browser, expected), expected);
        }
    });
}

#[test]
fn the_kubelets_swap_is_seen() {
    let (authority, files) = (Authority::new("CA"), Files::new());
    let root = files.0.path().to_owned();
    let version = |at: u32, name: &str| {
        files.pair(&format!("..v{at}/tls"), &authority.server(&[name]));
        let tmp = root.join("..data_tmp");
        symlink(format!("..v{at}"), &tmp).unwrap();
        tmp
    };
    let first = version(1, "one.example");
    fs::rename(first, root.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), root.join(name)).unwrap();
    }
    let swap = |at: u32, name: &str| -> Box<dyn FnOnce()> {
        let new = version(at, name);
        let (to, old) = (root.join("..data"), root.join(format!("..v{}", at - 1)));
        Box::new(move || {
            fs::rename(new, to).unwrap();
            fs::remove_dir_all(old).unwrap();
        })
    };
    let (cert, key) = (shown(&root.join("tls.crt")), shown(&root.join("tls.key")));
    let two = swap(2, "two.example");
    watched(
        &[("cert", &cert), ("key", &key)],
        &authority,
        vec![(two, "two.example")],
    );
    let three = swap(3, "three.example");
    watched(
        &[("cert-dir", &shown(&root))],
        &authority,
        vec![(three, "three.example")],
    );
}

#[test]
fn every_way_to_change_a_file_is_seen() {
    let (authority, files) = (Authority::new("CA"), Files::new());
    let root = files.0.path().to_owned();
    files.pair("live/tls", &authority.server(&["one.example"]));
    let (cert, key) = (
        shown(&root.join("live/tls.crt")),
        shown(&root.join("live/tls.key")),
    );
    let made = |name: &str| authority.server(&[name]);

    let in_place = (made("two.example"), root.clone());
    let renamed = (made("three.example"), root.clone());
    let replaced = (made("four.example"), root.clone());
    let linked = (made("five.example"), root.clone());
    let steps: Vec<Step> = vec![
        (
            Box::new(move || {
                let (made, root) = in_place;
                fs::write(root.join("live/tls.crt"), made.chain).unwrap();
                fs::write(root.join("live/tls.key"), made.key).unwrap();
            }),
            "two.example",
        ),
        (
            Box::new(move || {
                let (made, root) = renamed;
                for (name, text) in [("tls.crt", made.chain), ("tls.key", made.key)] {
                    fs::write(root.join("new"), text).unwrap();
                    fs::rename(root.join("new"), root.join("live").join(name)).unwrap();
                }
            }),
            "three.example",
        ),
        (
            Box::new(move || {
                let (made, root) = replaced;
                fs::create_dir(root.join("next")).unwrap();
                fs::write(root.join("next/tls.crt"), made.chain).unwrap();
                fs::write(root.join("next/tls.key"), made.key).unwrap();
                fs::rename(root.join("live"), root.join("old")).unwrap();
                fs::rename(root.join("next"), root.join("live")).unwrap();
            }),
            "four.example",
        ),
        (
            Box::new(move || {
                let (made, root) = linked;
                fs::create_dir(root.join("elsewhere")).unwrap();
                fs::write(root.join("elsewhere/a"), made.chain).unwrap();
                fs::write(root.join("elsewhere/b"), made.key).unwrap();
                for (name, to) in [("tls.crt", "../elsewhere/a"), ("tls.key", "../elsewhere/b")] {
                    symlink(to, root.join("live/new")).unwrap();
                    fs::rename(root.join("live/new"), root.join("live").join(name)).unwrap();
                }
            }),
            "five.example",
        ),
    ];
    watched(&[("cert", &cert), ("key", &key)], &authority, steps);
}

#[test]
fn a_pair_that_comes_later_and_in_halves_is_taken() {
    let (authority, files) = (Authority::new("CA"), Files::new());
    let root = files.0.path().to_owned();
    files.pair("tls", &authority.server(&["one.example"]));
    let late = authority.server(&["late.example"]);
    run(async {
        let (tls, _) = server(&[("cert-dir", &shown(files.0.path()))]);
        let browser = Arc::new(client(authority.roots()));
        let mut watch = Box::pin(tls.clone().watch());
        eventually("the first look", &mut watch, || true).await;
        fs::create_dir_all(root.join("later")).unwrap();
        fs::write(root.join("later/tls.crt"), late.chain).unwrap();
        let refused = || !tls.view().refused.is_empty();
        eventually("the half", &mut watch, refused).await;
        fs::write(root.join("later/tls.key"), late.key).unwrap();
        eventually("late.example", &mut watch, || has(&tls, "late.example")).await;
        assert_eq!(served(&tls, &browser, "late.example"), "late.example");
        assert!(!refused());
    });
}

#[test]
fn the_places_are_those_that_decide_what_a_path_means() {
    let files = Files::new();
    let root = fs::canonicalize(files.0.path()).unwrap();
    files.write("certs/..v1/tls.crt", "");
    symlink("..v1", root.join("certs/..data")).unwrap();
    symlink("..data/tls.crt", root.join("certs/tls.crt")).unwrap();
    symlink(root.join("certs"), root.join("link")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    let found = |path: &str| {
        let mut found: Vec<(String, Interest)> = places(&[root.join(path)])
            .into_iter()
            .filter_map(|(path, interest)| {
                let below = path.strip_prefix(&root).ok()?;
                Some((shown(below), interest))
            })
            .collect();
        found.sort();
        found
    };
    use Interest::{Entries, Itself};
    let expect = |expected: &[(&str, Interest)]| -> Vec<(String, Interest)> {
        expected
            .iter()
            .map(|(path, interest)| ((*path).to_owned(), *interest))
            .collect()
    };
    assert_eq!(
        found("certs/tls.crt"),
        expect(&[("", Itself), ("certs", Entries), ("certs/..v1", Entries)])
    );
    assert_eq!(
        found("link/tls.crt"),
        expect(&[("", Entries), ("certs", Entries), ("certs/..v1", Entries)])
    );
    assert_eq!(found("certs"), expect(&[("", Itself), ("certs", Entries)]));
    assert_eq!(found("none/deeper/tls.crt"), expect(&[("", Entries)]));
    assert_eq!(found("loop"), expect(&[("", Entries)]));
}
