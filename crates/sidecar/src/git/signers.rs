//! `--verify`: commits signed with ssh keys (git's `gpg.format=ssh`), checked against a file of allowed signers
//! (ssh-keygen(1), ALLOWED SIGNERS). The signature's form is OpenSSH's PROTOCOL.sshsig. What is not understood is refused.

use std::fs;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const MAGIC: &[u8] = b"SSHSIG";
/// What git signs for.
const NAMESPACE: &str = "git";

/// The keys that may sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signers(Vec<Signer>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Signer {
    principals: String,
    key: Vec<u8>,
}

impl Signers {
    /// Reads the file.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let text = fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
        Self::parse(&text).map_err(|why| format!("{shown}: {why}"))
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut signers = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let signer = Self::signer(line).map_err(|why| format!("line {}: {why}", at + 1))?;
            signers.extend(signer);
        }
        match signers.is_empty() {
            true => Err(
                "allows nobody; expected lines such as: alice@example.com ssh-ed25519 AAAA…"
                    .to_owned(),
            ),
            false => Ok(Self(signers)),
        }
    }

    /// None when the key is for other things than git.
    fn signer(line: &str) -> Result<Option<Signer>, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_kind = |word: &&str| {
            ["ssh-", "ecdsa-", "sk-"]
                .iter()
                .any(|kind| word.starts_with(kind))
        };
        let kind_at = words.iter().skip(1).position(is_kind).map(|at| at + 1);
        let (Some(at), Some(key)) = (kind_at, kind_at.and_then(|at| words.get(at + 1))) else {
            return Err("expected principals, a key's type and the key".to_owned());
        };
        for option in words[1..at].iter().flat_map(|word| options(word)) {
            match option.split_once('=') {
                Some(("namespaces", names)) => {
                    let mut names = names.trim_matches('"').split(',');
                    if !names.any(|name| matches!(name, NAMESPACE | "*")) {
                        return Ok(None);
                    }
                }
                _ => {
                    return Err(format!(
                        "\"{option}\" is not understood; of the options, namespaces=\"git\" is"
                    ));
                }
            }
        }
        let key = STANDARD
            .decode(key)
            .map_err(|_| "the key is not base64".to_owned())?;
        let kind = Bytes(&key).string().unwrap_or_default();
        if kind != words[at].as_bytes() {
            return Err(format!("the key is not of the type {}", words[at]));
        }
        Ok(Some(Signer {
            principals: words[0].trim_matches('"').to_owned(),
            key,
        }))
    }

    /// Who signed the text: the signature is good and its key is allowed. Else why not.
    pub(super) fn check(&self, text: &[u8], armoured: &str) -> Result<&str, String> {
        let inner = armoured
            .trim()
            .strip_prefix("-----BEGIN SSH SIGNATURE-----")
            .and_then(|rest| rest.strip_suffix("-----END SSH SIGNATURE-----"))
            .ok_or("is not signed with an ssh key")?;
        let inner: String = inner.split_whitespace().collect();
        let blob = STANDARD
            .decode(inner)
            .map_err(|_| "has a signature that is no base64")?;
        let broken = || "has a signature that is cut short or of another form".to_owned();
        let rest = blob.strip_prefix(MAGIC).ok_or_else(broken)?;
        let mut rest = Bytes(rest);
        let version = rest.number();
        let (key, namespace) = (
            rest.string().ok_or_else(broken)?,
            rest.string().ok_or_else(broken)?,
        );
        let (reserved, hash) = (
            rest.string().ok_or_else(broken)?,
            rest.string().ok_or_else(broken)?,
        );
        let signature = rest.string().ok_or_else(broken)?;
        if version != Some(1) {
            return Err(broken());
        }
        if namespace != NAMESPACE.as_bytes() {
            return Err("is signed for something else than git".to_owned());
        }
        let digested = match hash {
            b"sha256" => digest(&SHA256, text),
            b"sha512" => digest(&SHA512, text),
            _ => return Err(broken()),
        };
        let mut signed = MAGIC.to_vec();
        for part in [namespace, reserved, hash, digested.as_ref()] {
            put(&mut signed, part);
        }
        let signer = self.0.iter().find(|signer| signer.key == key);
        let signer = signer.ok_or("is signed with a key that is not allowed")?;
        verify(key, &signed, signature)?;
        Ok(&signer.principals)
    }
}

/// The options of a word: separated by commas outside of quotes.
fn options(word: &str) -> Vec<String> {
    let (mut all, mut quoted) = (vec![String::new()], false);
    for c in word.chars() {
        match c {
            ',' if !quoted => all.push(String::new()),
            _ => {
                quoted ^= c == '"';
                all.last_mut().expect("there is one from the start").push(c);
            }
        }
    }
    all
}

/// Checks a signature by the key that made it. (RFC 4253, 6.6; RFC 5656, 3.1; RFC 8332; RFC 8709)
fn verify(key: &[u8], signed: &[u8], signature: &[u8]) -> Result<(), String> {
    let wrong = || "has a signature that does not fit it".to_owned();
    let (mut key, mut signature) = (Bytes(key), Bytes(signature));
    let kind = key.string().ok_or_else(wrong)?;
    let by = signature.string().ok_or_else(wrong)?;
    let raw = signature.string().ok_or_else(wrong)?;
    let plain = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8], raw: &[u8]| {
        UnparsedPublicKey::new(algorithm, key).verify(signed, raw)
    };
    let verified = match (kind, by) {
        (b"ssh-ed25519", b"ssh-ed25519") => plain(&ED25519, key.string().ok_or_else(wrong)?, raw),
        (b"ssh-rsa", b"rsa-sha2-256" | b"rsa-sha2-512") => {
            let (e, n) = (
                key.string().ok_or_else(wrong)?,
                key.string().ok_or_else(wrong)?,
            );
            let public = RsaPublicKeyComponents {
                n: positive(n),
                e: positive(e),
            };
            match by {
                b"rsa-sha2-256" => public.verify(&RSA_PKCS1_2048_8192_SHA256, signed, raw),
                _ => public.verify(&RSA_PKCS1_2048_8192_SHA512, signed, raw),
            }
        }
        (b"ecdsa-sha2-nistp256", b"ecdsa-sha2-nistp256") => {
            let point = key
                .string()
                .and_then(|_curve| key.string())
                .ok_or_else(wrong)?;
            plain(
                &ECDSA_P256_SHA256_FIXED,
                point,
                &fixed(raw, 32).ok_or_else(wrong)?,
            )
        }
        (b"ecdsa-sha2-nistp384", b"ecdsa-sha2-nistp384") => {
            let point = key
                .string()
                .and_then(|_curve| key.string())
                .ok_or_else(wrong)?;
            plain(
                &ECDSA_P384_SHA384_FIXED,
                point,
                &fixed(raw, 48).ok_or_else(wrong)?,
            )
        }
        _ => {
            return Err(format!(
                "is signed with a key of the type {}; expected ssh-ed25519, ssh-rsa, ecdsa-sha2-nistp256 or \
                 ecdsa-sha2-nistp384",
                String::from_utf8_lossy(kind)
            ));
        }
    };
    verified.map_err(|_| wrong())
}

/// A number without the zero that says that it is positive.
fn positive(number: &[u8]) -> &[u8] {
    number.strip_prefix(&[0]).unwrap_or(number)
}

/// The two numbers of an ECDSA signature at a fixed width.
fn fixed(raw: &[u8], width: usize) -> Option<Vec<u8>> {
    let mut raw = Bytes(raw);
    let mut out = Vec::with_capacity(2 * width);
    for _ in 0..2 {
        let number = positive(raw.string()?);
        out.resize(out.len() + width.checked_sub(number.len())?, 0);
        out.extend_from_slice(number);
    }
    Some(out)
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Bytes to be taken from the front, in ssh's wire form (RFC 4251, 5).
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.number()? as usize;
        let (string, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(string)
    }
}
