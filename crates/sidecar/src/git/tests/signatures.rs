//! Commits that real git and ssh-keygen signed.

use std::fs;
use std::path::Path;

use gix_hash::Kind;
use gix_object::CommitRefIter;
use podkit_testkit::git::{Repository, command, git};
use podkit_testkit::process::run;
use podkit_testkit::{Need, able};

use crate::git::signers::Signers;

/// Makes a key; the line of the public one.
fn key(dir: &Path, kind: &str, bits: &str) -> String {
    let path = dir.join(kind);
    let mut keygen = std::process::Command::new("ssh-keygen");
    keygen
        .args(["-q", "-N", "", "-t", kind, "-b", bits, "-f"])
        .arg(&path);
    assert_eq!(run("ssh-keygen", &mut keygen).code, Some(0));
    fs::read_to_string(path.with_extension("pub")).unwrap()
}

fn check(repository: &Repository, commit: &str, allowed: &str) -> Result<String, String> {
    let file = repository.bare.with_extension("allowed");
    fs::write(&file, allowed).unwrap();
    let signers = Signers::read(&file)?;
    let raw = run(
        "git",
        &mut command(&repository.bare, &["cat-file", "commit", commit]),
    );
    let bytes = raw.out.into_bytes();
    let found = CommitRefIter::signature(&bytes, Kind::Sha1).unwrap();
    let (signature, signed) = found.ok_or("is not signed")?;
    let signature = String::from_utf8_lossy(signature.as_ref()).into_owned();
    signers
        .check(&signed.to_bstring(), &signature)
        .map(str::to_owned)
}

#[test]
fn signatures_of_allowed_keys_are_good() {
    if !able(&[Need::Program("ssh-keygen")]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::new(dir.path(), "app");
    let mut last = String::new();
    for (kind, bits) in [("ed25519", "256"), ("rsa", "2048"), ("ecdsa", "256")] {
        let public = key(dir.path(), kind, bits);
        let path = dir.path().join(kind);
        let signing = format!("user.signingkey={}", path.display());
        repository.write("file", kind);
        git(&repository.work, &["add", "-A"]);
        git(
            &repository.work,
            &[
                "-c",
                "gpg.format=ssh",
                "-c",
                &signing,
                "commit",
                "-q",
                "-S",
                "-m",
                kind,
            ],
        );
        repository.push();
        let commit = git(&repository.work, &["rev-parse", "HEAD"]);
        let allowed = format!("# who may\n{kind}@example.com namespaces=\"git\" {public}");
        assert_eq!(
            check(&repository, &commit, &allowed),
            Ok(format!("{kind}@example.com"))
        );
        // What git says of it is the same.
        let file = repository.bare.with_extension("allowed");
        let allowed_by = format!("gpg.ssh.allowedSignersFile={}", file.display());
        git(
            &repository.work,
            &["-c", &allowed_by, "verify-commit", &commit],
        );
        if !last.is_empty() {
            let why = check(&repository, &commit, &last).unwrap_err();
            assert!(why.contains("not allowed"), "{why}");
        }
        // A key for other things only.
        let other = format!("{kind}@example.com namespaces=\"file\" {public}\n{last}");
        assert!(check(&repository, &commit, &other).is_err());
        last = allowed;
    }
    let unsigned = repository.publish("unsigned");
    assert_eq!(
        check(&repository, &unsigned, &last),
        Err("is not signed".to_owned())
    );
}

#[test]
fn a_signature_fits_one_text() {
    if !able(&[Need::Program("ssh-keygen")]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let public = key(dir.path(), "ed25519", "256");
    let text = dir.path().join("text");
    fs::write(&text, "text").unwrap();
    let sign = |namespace: &str| {
        let mut keygen = std::process::Command::new("ssh-keygen");
        drop(fs::remove_file(dir.path().join("text.sig")));
        keygen.args(["-q", "-Y", "sign", "-n", namespace, "-f"]);
        keygen.arg(dir.path().join("ed25519")).arg(&text);
        assert_eq!(run("ssh-keygen", &mut keygen).code, Some(0));
        fs::read_to_string(dir.path().join("text.sig")).unwrap()
    };
    let file = dir.path().join("allowed");
    fs::write(&file, format!("me {public}")).unwrap();
    let signers = Signers::read(&file).unwrap();
    let (good, other) = (sign("git"), sign("file"));
    assert_eq!(signers.check(b"text", &good), Ok("me"));
    assert!(
        signers
            .check(b"texT", &good)
            .unwrap_err()
            .contains("does not fit")
    );
    assert!(
        signers
            .check(b"text", &other)
            .unwrap_err()
            .contains("something else")
    );
    assert!(signers.check(b"text", &good[..good.len() / 2]).is_err());
    assert!(
        signers
            .check(b"text", "-----BEGIN PGP SIGNATURE-----")
            .is_err()
    );
}

#[test]
fn a_file_that_is_not_understood_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("allowed");
    let check = |text: &str, expected: &str| {
        fs::write(&file, text).unwrap();
        let why = Signers::read(&file).unwrap_err();
        assert!(why.contains(expected), "{text}: {why}");
    };
    check("", "allows nobody");
    check("me", "line 1: expected principals");
    check(
        "me cert-authority ssh-ed25519 AAAA",
        "\"cert-authority\" is not understood",
    );
    check("me valid-after=\"2020\" ssh-ed25519 AAAA", "\"valid-after=");
    check("me ssh-ed25519 !", "not base64");
    check(
        "me ssh-ed25519 AAAAB3NzaC1yc2E=",
        "not of the type ssh-ed25519",
    );
}
