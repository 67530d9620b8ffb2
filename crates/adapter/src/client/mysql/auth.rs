//! How a user proves to be one, by the plugins of MySQL and MariaDB.

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA512};
use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;

/// Bytes of what the server wants to have mixed in.
pub(super) const NONCE_BYTES: usize = 20;

/// The way that is offered first: every server knows it, and asks for another when the user has another.
pub(super) const FIRST: &str = "mysql_native_password";

/// What is answered to a plugin; `private`: nobody else can read it on its way. The error is a clause.
pub(super) fn answer(
    plugin: &str,
    password: &[u8],
    nonce: &[u8],
    private: bool,
) -> Result<Vec<u8>, String> {
    match plugin {
        "mysql_native_password" | "caching_sha2_password" if password.is_empty() => Ok(Vec::new()),
        "mysql_native_password" => Ok(native(password, nonce)),
        "caching_sha2_password" => Ok(caching_sha2(password, nonce)),
        "client_ed25519" => Ok(ed25519(password, nonce).to_vec()),
        // The server asks the kernel who has the other end of the socket.
        "auth_socket" | "unix_socket" => Ok(Vec::new()),
        "mysql_clear_password" if private => Ok([password, b"\0"].concat()),
        "mysql_clear_password" => Err(
            "wants the password as it is, which it gets with tls=verify or over a unix socket only"
                .to_owned(),
        ),
        other => Err(format!(
            "wants to authenticate by {other}; known are mysql_native_password, caching_sha2_password, ed25519, \
             unix_socket and mysql_clear_password"
        )),
    }
}

/// SHA1(password) XOR SHA1(nonce + SHA1(SHA1(password))).
fn native(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    let sha1 = |bytes: &[u8]| digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes);
    let once = sha1(password);
    let mixed = sha1(&[nonce, sha1(once.as_ref()).as_ref()].concat());
    xor(once.as_ref(), mixed.as_ref())
}

/// SHA256(password) XOR SHA256(SHA256(SHA256(password)) + nonce).
fn caching_sha2(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    let sha256 = |bytes: &[u8]| digest::digest(&SHA256, bytes);
    let once = sha256(password);
    let mixed = sha256(&[sha256(once.as_ref()).as_ref(), nonce].concat());
    xor(once.as_ref(), mixed.as_ref())
}

/// The password for the key that the server has sent in the clear (PEM): OAEP of the password XOR the nonce.
pub(super) fn sealed(password: &[u8], nonce: &[u8], pem: &[u8]) -> Result<Vec<u8>, String> {
    let wrong = || "sent a public key that is none".to_owned();
    if nonce.is_empty() {
        return Err("sent no nonce".to_owned());
    }
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| wrong())?;
    let key = PublicEncryptingKey::from_der(&der).map_err(|_| wrong())?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| wrong())?;
    let clear = [password, b"\0"].concat();
    let repeated: Vec<u8> = nonce.iter().copied().cycle().take(clear.len()).collect();
    let mut sealed = vec![0; key.ciphertext_size()];
    let written = key
        .encrypt(
            &OAEP_SHA1_MGF1SHA1,
            &xor(&clear, &repeated),
            &mut sealed,
            None,
        )
        .map_err(|_| "can't be sent so long a password".to_owned())?;
    Ok(written.to_vec())
}

/// MariaDB's ed25519: RFC 8032 with SHA512(password) where it has SHA512(seed), over the nonce.
fn ed25519(password: &[u8], nonce: &[u8]) -> [u8; 64] {
    let sha512 = |parts: &[&[u8]]| -> [u8; 64] {
        let hash = digest::digest(&SHA512, &parts.concat());
        hash.as_ref().try_into().expect("SHA-512 has 64 bytes")
    };
    let expanded = sha512(&[password]);
    let (low, prefix) = expanded.split_at(32);
    let low: [u8; 32] = low.try_into().expect("half of 64");
    let secret = Scalar::from_bytes_mod_order(clamp_integer(low));
    let public = EdwardsPoint::mul_base(&secret).compress();
    let once = Scalar::from_bytes_mod_order_wide(&sha512(&[prefix, nonce]));
    let point = EdwardsPoint::mul_base(&once).compress();
    let mixed = sha512(&[point.as_bytes(), public.as_bytes(), nonce]);
    let proof = Scalar::from_bytes_mod_order_wide(&mixed) * secret + once;
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(point.as_bytes());
    signature[32..].copy_from_slice(proof.as_bytes());
    signature
}

fn xor(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter()
        .zip(other)
        .map(|(one, other)| one ^ other)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Made with Python's hashlib by the formulas of the servers' documentation.
    #[test]
    fn passwords_are_mixed_with_the_nonce() {
        let nonce: Vec<u8> = (1..=20).collect();
        let check = |plugin: &str, expected: &str| {
            let made = answer(plugin, b"secret", &nonce, false).unwrap();
            assert_eq!(hex(&made), expected, "{plugin}");
        };
        check(
            "mysql_native_password",
            "b32bb3a583e1340c0a1108d58b1be49781ad8c2f",
        );
        check(
            "caching_sha2_password",
            "746ebe205d56a0707acb3e796e834e0dd7b1d61743b26bd5202c7a623230c7c9",
        );
        assert_eq!(
            answer("mysql_native_password", b"", &nonce, false),
            Ok(Vec::new())
        );
        assert!(answer("mysql_clear_password", b"x", &nonce, false).is_err());
        assert_eq!(
            answer("mysql_clear_password", b"x", &nonce, true),
            Ok(b"x\0".to_vec())
        );
        assert!(
            answer("dialog", b"x", &nonce, true)
                .unwrap_err()
                .contains("by dialog")
        );
    }

    /// The server opens what was sealed with its key, and takes the nonce off.
    #[test]
    fn a_password_is_sealed() {
        use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
        use aws_lc_rs::rsa::{KeySize, OaepPrivateDecryptingKey, PrivateDecryptingKey};
        use base64::Engine as _;
        let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
        let der: PublicKeyX509Der<'_> = private.public_key().as_der().unwrap();
        let body = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
        let nonce: Vec<u8> = (1..=20).collect();
        let sealed = sealed(
            b"a password of more than twenty bytes",
            &nonce,
            pem.as_bytes(),
        )
        .unwrap();
        let key = OaepPrivateDecryptingKey::new(private).unwrap();
        let mut opened = vec![0; key.min_output_size()];
        let opened = key
            .decrypt(&OAEP_SHA1_MGF1SHA1, &sealed, &mut opened, None)
            .unwrap();
        let repeated: Vec<u8> = nonce.iter().copied().cycle().take(opened.len()).collect();
        assert_eq!(
            xor(opened, &repeated),
            b"a password of more than twenty bytes\0"
        );
    }

    #[test]
    fn a_key_that_is_none_is_said() {
        assert!(sealed(b"x", &[1], b"-----BEGIN PUBLIC KEY-----").is_err());
    }
}
