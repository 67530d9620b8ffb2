//! Who one is for a registry: imagePullSecrets first, then the user's own configuration, as Docker, Podman and the kubelet
//! keep it. (docker config.json; containers-auth.json(5); kubelet, pkg/credentialprovider)

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use crate::image::reference::{DEFAULT_REGISTRY, Reference};

/// What Docker calls its own registry.
const DOCKER_INDEX: &str = "index.docker.io";

/// What can be shown to a registry.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::image) enum Credential {
    Password {
        username: String,
        password: String,
    },
    /// Is given to the token server.
    IdentityToken(String),
    /// Is given to the registry as it is.
    RegistryToken(String),
}

/// Says no secrets.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}

/// Why a configuration can't be read: one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KeyringError(String);

/// Where credentials are looked for, in this order.
#[derive(Clone, Default)]
pub struct Keyring {
    configs: Vec<Config>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({})", self.configs.len())
    }
}

/// `config.json`, `auth.json`.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl Entry {
    fn credential(&self) -> Option<Credential> {
        let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = some(&self.registrytoken) {
            return Some(Credential::RegistryToken(token));
        }
        if let Some(token) = some(&self.identitytoken) {
            return Some(Credential::IdentityToken(token));
        }
        if let Some(auth) = some(&self.auth) {
            let bytes = BASE64_STANDARD.decode(auth.trim()).ok()?;
            let pair = String::from_utf8(bytes).ok()?;
            let (username, password) = pair.split_once(':')?;
            return Some(Credential::Password {
                username: username.to_owned(),
                password: password.trim_end_matches('\0').to_owned(),
            });
        }
        Some(Credential::Password {
            username: some(&self.username)?,
            password: some(&self.password)?,
        })
    }
}

impl Keyring {
    /// imagePullSecrets (JSON of `.dockerconfigjson` or `.dockercfg`), then `authfile`, or without one what the user has:
    /// `$REGISTRY_AUTH_FILE`, `$XDG_RUNTIME_DIR/containers/auth.json`, `~/.config/containers/auth.json`,
    /// `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`.
    pub fn new(pull_secrets: &[Vec<u8>], authfile: Option<&Path>) -> Result<Self, KeyringError> {
        let mut configs = Vec::new();
        for (number, secret) in pull_secrets.iter().enumerate() {
            let said = |error| KeyringError(format!("imagePullSecrets[{number}]: {error}"));
            configs.push(parse(secret).map_err(said)?);
        }
        match authfile {
            Some(path) => configs.push(read(path)?),
            None => {
                let variable =
                    |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
                let home = variable("HOME").map(PathBuf::from);
                let of_home = |path: &str| Some(home.as_ref()?.join(path));
                let places = [
                    variable("REGISTRY_AUTH_FILE").map(PathBuf::from),
                    variable("XDG_RUNTIME_DIR")
                        .map(|dir| Path::new(&dir).join("containers/auth.json")),
                    of_home(".config/containers/auth.json"),
                    match variable("DOCKER_CONFIG") {
                        Some(dir) => Some(Path::new(&dir).join("config.json")),
                        None => of_home(".docker/config.json"),
                    },
                ];
                for path in places.into_iter().flatten().filter(|path| path.exists()) {
                    configs.push(read(&path)?);
                }
            }
        }
        Ok(Self { configs })
    }

    /// What can be shown for an image, the best first.
    pub(in crate::image) fn find(
        &self,
        reference: &Reference,
    ) -> Result<Vec<Credential>, KeyringError> {
        let mut found: Vec<Credential> = Vec::new();
        for config in &self.configs {
            for credential in config.find(reference)? {
                if !found.contains(&credential) {
                    found.push(credential);
                }
            }
        }
        Ok(found)
    }
}

fn read(path: &Path) -> Result<Config, KeyringError> {
    let said = |error: &dyn fmt::Display| KeyringError(format!("{}: {error}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| said(&error))?;
    parse(&bytes).map_err(|error| said(&error))
}

/// The newer form has `auths`, the older one (`.dockercfg`) is what it holds.
fn parse(bytes: &[u8]) -> Result<Config, String> {
    // An error of the parser may show what it was reading.
    let wrong = |error: serde_json::Error| {
        format!(
            "it can't be read (line {}, column {})",
            error.line(),
            error.column()
        )
    };
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(wrong)?;
    let newer = ["auths", "credsStore", "credHelpers"];
    let is_newer = newer.iter().any(|key| value.get(key).is_some());
    if is_newer || value.as_object().is_some_and(serde_json::Map::is_empty) {
        return serde_json::from_value(value).map_err(wrong);
    }
    let auths = serde_json::from_value(value).unwrap_or_default();
    Ok(Config {
        auths,
        ..Config::default()
    })
}

impl Config {
    fn find(&self, reference: &Reference) -> Result<Vec<Credential>, KeyringError> {
        let mut found = Vec::new();
        let registry = reference.registry();
        let helper_names: &[&str] = if registry == DEFAULT_REGISTRY {
            &["docker.io", DOCKER_INDEX, "https://index.docker.io/v1/"]
        } else {
            &[registry]
        };
        let helper = helper_names
            .iter()
            .find_map(|name| self.cred_helpers.get(*name));
        if let Some(helper) = helper
            .or(self.creds_store.as_ref())
            .filter(|name| !name.is_empty())
        {
            let server = if registry == DEFAULT_REGISTRY {
                "https://index.docker.io/v1/"
            } else {
                registry
            };
            found.extend(ask_helper(helper, server)?);
        }
        // The longest key is the nearest.
        let mut keys: Vec<(&String, &Entry)> = self.auths.iter().collect();
        keys.sort_by_key(|(key, _)| std::cmp::Reverse(normalised(key)));
        let matching = keys.into_iter().filter(|(key, _)| matches(key, reference));
        found.extend(matching.filter_map(|(_, entry)| entry.credential()));
        Ok(found)
    }
}

/// A key without its scheme and API version. (kubelet, keyring.go, `Add`)
fn normalised(key: &str) -> String {
    let key = key
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let path = path.trim_end_matches('/');
    let path = path
        .strip_prefix("v1")
        .or_else(|| path.strip_prefix("v2"))
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
        .unwrap_or(path)
        .trim_start_matches('/');
    if path.is_empty() {
        host.to_owned()
    } else {
        format!("{host}/{path}")
    }
}

/// Whether a key is for an image: `*.example.com`, part by part; the same port; a prefix of the path. (kubelet, keyring.go,
/// `URLsMatch`)
fn matches(key: &str, reference: &Reference) -> bool {
    let key = normalised(key);
    let (host, path) = key.split_once('/').unwrap_or((&key, ""));
    let host = match host {
        DOCKER_INDEX | "registry-1.docker.io" => DEFAULT_REGISTRY,
        host => host,
    };
    let registry = reference.registry();
    let split = |text: &str| match text.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (name.to_owned(), Some(port.to_owned()))
        }
        _ => (text.to_owned(), None),
    };
    let ((pattern, pattern_port), (name, port)) = (split(host), split(registry));
    if pattern_port != port {
        return false;
    }
    let (patterns, names): (Vec<&str>, Vec<&str>) =
        (pattern.split('.').collect(), name.split('.').collect());
    let alike = patterns.len() == names.len()
        && patterns
            .iter()
            .zip(&names)
            .all(|(pattern, name)| glob(pattern, name));
    let repository = reference.repository();
    let below = path.is_empty()
        || repository == path
        || repository
            .strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('/'));
    alike && below
}

/// `*` is any text.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            let mut ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.any(|at| glob(rest, &text[at..]))
        }),
    }
}

/// `docker-credential-NAME get`. (docker-credential-helpers)
fn ask_helper(name: &str, server: &str) -> Result<Option<Credential>, KeyringError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let program = format!("docker-credential-{name}");
    if name.contains('/') {
        return Err(KeyringError(format!(
            "{program}: a helper has a name, not a path"
        )));
    }
    let said = |what: String| KeyringError(format!("the credential helper {program}: {what}"));
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| said(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read has its reasons, and says them.
        let _written = stdin.write_all(format!("{server}\n").as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| said(error.to_string()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout);
        let text = text.trim();
        if text.contains("credentials not found") {
            return Ok(None);
        }
        let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
        return Err(said(text));
    }
    let answer: Answer = serde_json::from_slice(&output.stdout)
        .map_err(|_| said("its answer is no JSON".to_owned()))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credential::IdentityToken(answer.secret),
        _ => Credential::Password {
            username: answer.username,
            password: answer.secret,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(json: &str, image: &str) -> Vec<String> {
        let keyring = Keyring {
            configs: vec![parse(json.as_bytes()).unwrap()],
        };
        let name = |credential: &Credential| match credential {
            Credential::Password { username, password } => format!("{username}:{password}"),
            Credential::IdentityToken(token) => format!("identity {token}"),
            Credential::RegistryToken(token) => format!("registry {token}"),
        };
        let found = keyring.find(&image.parse().unwrap()).unwrap();
        found.iter().map(name).collect()
    }

    #[test]
    fn docker_hub_has_many_names() {
        for key in [
            "https://index.docker.io/v1/",
            "index.docker.io",
            "docker.io",
            "https://docker.io/v2/",
        ] {
            let json = format!(r#"{{"auths": {{"{key}": {{"auth": "am9lOnA6dw=="}}}}}}"#);
            assert_eq!(names(&json, "nginx"), ["joe:p:w"], "{key}");
            assert_eq!(names(&json, "ghcr.io/a/b"), [""; 0], "{key}");
        }
    }

    #[test]
    fn keys_match_as_the_kubelet_has_it() {
        let entry = |key: &str| format!(r#""{key}": {{"username": "{key}", "password": "x"}}"#);
        let keys = [
            "*.example.com",
            "reg.example.com/team",
            "reg.example.com",
            "reg.example.com:5000",
            "example.com",
        ];
        let all: Vec<String> = keys.iter().map(|key| entry(key)).collect();
        let json = format!("{{\"auths\": {{{}}}}}", all.join(","));
        assert_eq!(
            names(&json, "reg.example.com/team/app"),
            [
                "reg.example.com/team:x",
                "reg.example.com:x",
                "*.example.com:x"
            ]
        );
        assert_eq!(
            names(&json, "reg.example.com/teamwork/app"),
            ["reg.example.com:x", "*.example.com:x"]
        );
        assert_eq!(
            names(&json, "reg.example.com:5000/app"),
            ["reg.example.com:5000:x"]
        );
        assert_eq!(names(&json, "a.reg.example.com/app"), [""; 0]);
        // The older form.
        assert_eq!(
            names(
                r#"{"r.io": {"username": "u", "password": "p", "email": "e"}}"#,
                "r.io/a"
            ),
            ["u:p"]
        );
        assert_eq!(
            names(r#"{"auths": {"r.io": {"identitytoken": "t"}}}"#, "r.io/a"),
            ["identity t"]
        );
        assert_eq!(names("{}", "r.io/a"), [""; 0]);
        let error = Keyring::new(&[b"{\"auths\": [\"secret\"]}".to_vec()], None).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("imagePullSecrets[0]: it can't be read")
        );
        assert!(!error.to_string().contains("secret\""));
    }
}
