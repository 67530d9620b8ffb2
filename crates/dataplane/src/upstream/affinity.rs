//! Sessions that stay with their endpoint: a cookie that names it.
//!
//! The cookie's value is a MAC of the endpoint's name under a secret (HMAC-SHA-256, RFC 2104, cut to 128 bits), so it tells a client
//! nothing about addresses, and who does not know the secret can't make one. It is compared with those of the endpoints that
//! there are: nothing is decoded, nothing is kept per session, and replicas with the same secret agree. An endpoint that is gone
//! has no value any more, so its sessions, and no others, get another one.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::hmac;
use podkit_foundation::params::ParamType;

/// `--affinity`: `cookie` or `cookie:NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffinityCookie {
    /// The cookie's name.
    pub name: String,
}

impl ParamType for AffinityCookie {
    const TYPE_NAME: &'static str = "affinity";
    const EXPECTED: &'static str = "cookie or cookie:NAME";

    fn parse(text: &str) -> Result<Self, String> {
        let name = match text.split_once(':') {
            None if text == "cookie" => "podkit",
            Some(("cookie", name)) => name,
            _ => return Err(String::new()),
        };
        // A token (RFC 6265 section 4.1.1).
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(token) {
            return Err(format!("\"{name}\" is not a cookie's name"));
        }
        Ok(Self {
            name: name.to_owned(),
        })
    }
}

/// A secret has at least so many bytes: as many as the MAC's (RFC 2104 section 3).
const SECRET_BYTES: usize = 32;

/// Cookies for endpoints. Clones share.
#[derive(Clone)]
pub struct Affinity(Arc<Shared>);

struct Shared {
    name: String,
    /// What follows the value in Set-Cookie.
    attributes: &'static str,
    key: hmac::Key,
}

impl std::fmt::Debug for Affinity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Affinity")
            .field("name", &self.0.name)
            .finish_non_exhaustive()
    }
}

/// The value of a cookie: 22 characters.
pub(super) type Tag = [u8; 22];

impl Affinity {
    /// `secure`: clients come by TLS, and the cookie goes no other way. Without a file the secret is made here, and another process
    /// has another one. An error is why the file is no good.
    pub fn new(
        cookie: &AffinityCookie,
        secret_file: Option<&Path>,
        secure: bool,
    ) -> Result<Self, String> {
        let secret = match secret_file {
            Some(path) => {
                let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
                let secret = bytes.trim_ascii_end();
                if secret.len() < SECRET_BYTES {
                    return Err(format!(
                        "has {} bytes; expected at least {SECRET_BYTES}, such as of `openssl rand -base64 32`",
                        secret.len()
                    ));
                }
                secret.to_vec()
            }
            None => {
                let mut secret = vec![0; SECRET_BYTES];
                aws_lc_rs::rand::fill(&mut secret)
                    .map_err(|_| "no random bytes are there".to_owned())?;
                secret
            }
        };
        Ok(Self(Arc::new(Shared {
            name: cookie.name.clone(),
            attributes: match secure {
                true => "; Path=/; HttpOnly; SameSite=Lax; Secure\r\n",
                false => "; Path=/; HttpOnly; SameSite=Lax\r\n",
            },
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
        })))
    }

    /// The cookie's name.
    pub fn cookie(&self) -> &str {
        &self.0.name
    }

    /// The value for the endpoint of that name.
    pub(super) fn tag(&self, endpoint: &str) -> Tag {
        let mut context = hmac::Context::with_key(&self.0.key);
        context.update(b"podkit affinity 1\0");
        context.update(endpoint.as_bytes());
        base64url(&context.sign().as_ref()[..16])
    }

    /// The field line that gives a session to it.
    pub(super) fn field(&self, tag: &Tag) -> String {
        let mut line = String::new();
        let value = std::str::from_utf8(tag).unwrap_or_default();
        write!(
            line,
            "Set-Cookie: {}={value}{}",
            self.0.name, self.0.attributes
        )
        .expect("writing to a String can't fail");
        line
    }
}

/// base64url without padding (RFC 4648 section 5) of 16 bytes.
fn base64url(bytes: &[u8]) -> Tag {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut tag = [b'A'; 22];
    for (at, out) in tag.iter_mut().enumerate() {
        let bit = at * 6;
        let pair = |at: usize| u16::from(bytes.get(at).copied().unwrap_or(0));
        let word = pair(bit / 8) << 8 | pair(bit / 8 + 1);
        *out = ALPHABET[usize::from(word >> (10 - bit % 8) & 0x3f)];
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_cookies() {
        let check = |text: &str, expected: Option<&str>| {
            let parsed = AffinityCookie::parse(text).ok().map(|cookie| cookie.name);
            assert_eq!(parsed.as_deref(), expected, "{text}");
        };
        check("cookie", Some("podkit"));
        check("cookie:SRV_1", Some("SRV_1"));
        check("cookie:", None);
        check("cookie:a=b", None);
        check("ip", None);
    }

    #[test]
    fn values_are_base64url() {
        // RFC 4648's alphabet; checked with `base64 -w0 | tr +/ -_`.
        assert_eq!(&base64url(&[0xff; 16]), b"_____________________w");
        assert_eq!(&base64url(b"0123456789abcdef"), b"MDEyMzQ1Njc4OWFiY2RlZg");
    }

    #[test]
    fn a_secret_makes_the_same_values_everywhere_and_another_one_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
        let cookie = AffinityCookie::parse("cookie:s").unwrap();
        let with = |file: Option<&Path>| Affinity::new(&cookie, file, true).unwrap();
        let (a, b, other) = (with(Some(&path)), with(Some(&path)), with(None));
        assert_eq!(a.tag("x:1"), b.tag("x:1"));
        assert_ne!(a.tag("x:1"), a.tag("x:2"));
        assert_ne!(a.tag("x:1"), other.tag("x:1"));
        let line = a.field(&a.tag("x:1"));
        assert!(line.starts_with("Set-Cookie: s="), "{line}");
        assert!(
            line.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure\r\n"),
            "{line}"
        );
        assert!(!format!("{a:?}").contains("0123"));
        std::fs::write(&path, "short").unwrap();
        assert!(
            Affinity::new(&cookie, Some(&path), true)
                .unwrap_err()
                .contains("has 5 bytes")
        );
    }
}
