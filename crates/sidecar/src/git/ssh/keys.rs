//! The private key that a user is known by: of OpenSSH's form, or PEM.

use std::fs;
use std::path::{Path, PathBuf};

use podkit_foundation::params::ParamType;
use russh::keys::{Algorithm, Error, PrivateKey, decode_secret_key};

use super::short::widened;

/// Files, as `--ssh-key-file` names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFiles(pub(in crate::git) Vec<PathBuf>);

impl ParamType for KeyFiles {
    const TYPE_NAME: &'static str = "files";
    const EXPECTED: &'static str = "a file, or several with : between them";

    fn parse(text: &str) -> Result<Self, String> {
        match text.split(':').any(str::is_empty) {
            true => Err("one has no name".to_owned()),
            false => Ok(Self(text.split(':').map(PathBuf::from).collect())),
        }
    }
}

/// Reads a key; the passphrase is for one that is encrypted.
pub(in crate::git) fn read(path: &Path, passphrase: Option<&str>) -> Result<PrivateKey, String> {
    let wrong = |why: &str| format!("{}: {why}", path.display());
    let text = fs::read_to_string(path).map_err(|error| wrong(&error.to_string()))?;
    let text = widened(&text).unwrap_or(text);
    if let Some(cipher) = old_cipher(&text) {
        return Err(wrong(&format!(
            "is encrypted by {cipher} in PEM's old way, which is not read; ssh-keygen -p -f FILE writes it anew"
        )));
    }
    let is_openssh = text.contains("-----BEGIN OPENSSH PRIVATE KEY-----");
    let mut is_encrypted = text.contains("ENCRYPTED");
    // PEM says on its outside whether it is encrypted; a passphrase for what isn't is no use to the reader.
    let passphrase = passphrase.filter(|_| is_openssh || is_encrypted);
    let key = decode_secret_key(&text, passphrase).map_err(|error| {
        is_encrypted |= matches!(
            error,
            Error::KeyIsEncrypted | Error::SshKey(russh::keys::ssh_key::Error::Crypto)
        );
        match (is_encrypted, passphrase) {
            (true, None) => {
                wrong("is encrypted; its passphrase goes into --ssh-key-passphrase-file")
            }
            (true, Some(_)) => {
                wrong("the passphrase of --ssh-key-passphrase-file does not open it")
            }
            (false, _) => wrong(&format!(
                "is no private key of OpenSSH's form or PEM ({error})"
            )),
        }
    })?;
    match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } | Algorithm::Rsa { .. } => Ok(key),
        other => Err(wrong(&format!(
            "is a key of the kind {other}; expected ed25519, ecdsa or rsa"
        ))),
    }
}

/// The cipher of PEM's old encryption (RFC 1421), if it is one that can't be read. It is weak: one round of MD5.
fn old_cipher(text: &str) -> Option<&str> {
    let cipher = text
        .lines()
        .find_map(|line| line.strip_prefix("DEK-Info:"))?;
    let cipher = cipher.trim().split(',').next().unwrap_or_default();
    let is_rsa = text.contains("-----BEGIN RSA PRIVATE KEY-----");
    (!is_rsa || cipher != "AES-128-CBC").then_some(cipher)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use podkit_testkit::process::run;
    use podkit_testkit::{Need, able};

    use super::*;

    /// A key by ssh-keygen.
    fn key(dir: &Path, args: &[&str]) -> PathBuf {
        let path = dir.join(args.join("_").replace('/', "_"));
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-C", "", "-f"]).arg(&path).args(args);
        assert_eq!(run("ssh-keygen", &mut command).code, Some(0), "{args:?}");
        path
    }

    #[test]
    fn keys_of_every_form_are_read() {
        if !able(&[Need::Program("ssh-keygen")]) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        for kind in [
            &["-ted25519"][..],
            &["-trsa", "-b2048"],
            &["-tecdsa", "-b256"],
            &["-tecdsa", "-b384"],
            &["-tecdsa", "-b521"],
        ] {
            for form in ["RFC4716", "PEM", "PKCS8"] {
                // ssh-keygen writes ed25519 in its own form, whatever it is told.
                let args = [kind, &["-m", form]].concat();
                let plain = key(dir.path(), &[&args[..], &["-N", ""]].concat());
                let public = fs::read_to_string(plain.with_extension("pub")).unwrap();
                let found = read(&plain, None).unwrap_or_else(|why| panic!("{args:?}: {why}"));
                let found = found.public_key().to_openssh().unwrap();
                assert_eq!(found.trim(), public.trim(), "{args:?}");
                // A passphrase that isn't needed is no fault.
                read(&plain, Some("secret")).unwrap_or_else(|why| panic!("{args:?}: {why}"));

                let locked = key(dir.path(), &[&args[..], &["-N", "secret"]].concat());
                let is_old = form == "PEM" && kind[0] == "-tecdsa";
                let check = |passphrase: Option<&str>, expected: &str| {
                    let why = read(&locked, passphrase).unwrap_err();
                    let expected = if is_old { "in PEM's old way" } else { expected };
                    assert!(why.contains(expected), "{args:?}: {why}");
                };
                check(None, "is encrypted; its passphrase goes into");
                check(Some("wrong"), "does not open it");
                match is_old {
                    true => check(Some("secret"), ""),
                    false => {
                        let found = read(&locked, Some("secret"));
                        drop(found.unwrap_or_else(|why| panic!("{args:?}: {why}")));
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let check = |text: &str, expected: &str| {
            fs::write(&path, text).unwrap();
            let why = read(&path, None).unwrap_err();
            assert!(why.contains(expected) && why.lines().count() == 1, "{why}");
        };
        check("", "is no private key");
        check("ssh-ed25519 AAAA", "is no private key");
        check(
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n",
            "is no private key",
        );
        check(
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: DES-EDE3-CBC,00\n\nAAAA\n",
            "by DES-EDE3-CBC",
        );
        let nowhere = read(&dir.path().join("nowhere"), None).unwrap_err();
        assert!(nowhere.contains("nowhere: No such file"), "{nowhere}");
    }

    #[test]
    fn files_may_be_several() {
        let paths = |text: &str| KeyFiles::parse(text).map(|files| files.0.len());
        assert_eq!((paths("/a"), paths("/a:/b")), (Ok(1), Ok(2)));
        assert!(paths("/a:").is_err());
    }
}
