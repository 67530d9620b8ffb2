//! What is shown at a server's door. Files are read each time: whoever renews them needs no restart.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hyper::Method;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

use super::http::{Client, Request};
use super::location::Url;

/// A token of an app is good for an hour.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(45 * 60);
/// What GitHub answers is about one KiB.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// Nobody in particular.
    Nobody,
    /// A user with a password or a token.
    Password {
        /// The user.
        username: String,
        /// The file with the password.
        file: PathBuf,
    },
    /// A GitHub App.
    App(App),
}

/// A GitHub App, installed somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct App {
    /// Its id, or its client id.
    pub(super) id: String,
    /// The installation's number.
    pub(super) installation: u64,
    /// Its private key, PEM.
    pub(super) key: PathBuf,
    /// `https://api.github.com`.
    pub(super) api: Url,
}

/// Shows credentials; remembers an app's token for as long as it is good.
#[derive(Debug)]
pub(super) struct Door {
    credentials: Credentials,
    token: Option<(Instant, String)>,
}

impl Door {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            token: None,
        }
    }

    pub(super) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// It was not let in: a token that is remembered may have been withdrawn.
    pub(super) fn forget(&mut self) {
        self.token = None;
    }

    /// The Authorization field, if there is one to send.
    pub(super) fn authorization(
        &mut self,
        client: &mut Client,
        deadline: Instant,
    ) -> Result<Option<String>, String> {
        match &self.credentials {
            Credentials::Nobody => Ok(None),
            Credentials::Password { username, file } => {
                Ok(Some(basic(username, &read("--password-file", file)?)))
            }
            Credentials::App(app) => {
                let good = self.token.as_ref();
                let good = good.filter(|(since, _)| since.elapsed() < TOKEN_AGE_MAX);
                let token = match good {
                    Some((_, token)) => token.clone(),
                    None => {
                        let token = app.token(client, deadline)?;
                        self.token = Some((Instant::now(), token.clone()));
                        token
                    }
                };
                Ok(Some(basic("x-access-token", &token)))
            }
        }
    }
}

fn basic(username: &str, password: &str) -> String {
    format!(
        "Basic {}",
        STANDARD.encode(format!("{username}:{password}"))
    )
}

/// A secret in a file, without the newline at its end.
pub(super) fn read(flag: &str, path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path);
    let text = text.map_err(|error| format!("{flag} {}: {error}", path.display()))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    match secret.is_empty() || secret.contains(['\r', '\n']) {
        true => Err(format!(
            "{flag} {}: expected one line that is not empty",
            path.display()
        )),
        false => Ok(secret.to_owned()),
    }
}

impl App {
    /// Asks for a token of the installation.
    fn token(&self, client: &mut Client, deadline: Instant) -> Result<String, String> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let proof = self.proof(now.as_secs())?;
        let path = format!("/app/installations/{}/access_tokens", self.installation);
        let request = Request {
            method: Method::POST,
            path: &path,
            headers: &[
                ("Accept", "application/vnd.github+json"),
                ("X-GitHub-Api-Version", "2022-11-28"),
            ],
            content_type: None,
            body: Vec::new(),
            authorization: Some(format!("Bearer {proof}")),
        };
        let answer = client.send(&self.api, request, deadline)?;
        let (status, text) = (answer.status, answer.body.text(ANSWER_BYTES_MAX)?);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let word = |name: &str| json.get(name).and_then(serde_json::Value::as_str);
        match word("token").filter(|_| status.is_success()) {
            Some(token) => Ok(token.to_owned()),
            None => Err(format!(
                "{} gives no token for installation {} of the app {}: {status} {}",
                self.api,
                self.installation,
                self.id,
                word("message").unwrap_or_default()
            )),
        }
    }

    /// A JSON Web Token (RFC 7519) signed with the app's key, good for some minutes.
    fn proof(&self, now: u64) -> Result<String, String> {
        let wrong = |why: &str| {
            format!(
                "--github-app-private-key-file {}: {why}",
                self.key.display()
            )
        };
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|error| wrong(&error.to_string()))?;
        let pair = match &key {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            _ => return Err(wrong("is no RSA key")),
        };
        let pair = pair.map_err(|error| wrong(&error.to_string()))?;
        let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"RS256","typ":"JWT"}"#);
        // Clocks differ: a minute back, as GitHub's documentation has it.
        let claims = serde_json::json!({"iat": now - 60, "exp": now + 540, "iss": self.id});
        let text = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            text.as_bytes(),
            &mut signature,
        )
        .map_err(|error| wrong(&error.to_string()))?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}
