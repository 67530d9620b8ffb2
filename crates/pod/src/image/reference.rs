//! An image's name as people write it, and what it means: `nginx` is `docker.io/library/nginx`.
//!
//! The grammar and the normalisation are those of distribution/reference (reference.go, normalize.go), which Docker,
//! containerd, Podman and the kubelet share, so that a name means here what it means there. A looser split at colons was
//! rejected: `Ubuntu:22.04` would be asked of a registry that can only answer nonsense.

use std::fmt;
use std::str::FromStr;

use super::digest::Digest;

/// The registry of names that have none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag that is asked for when there is none and no digest either.
pub const DEFAULT_TAG: &str = "latest";
/// The whole name, registry included. (distribution/reference: NameTotalLengthMax)
const NAME_BYTES_MAX: usize = 255;

/// A normalised image name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no image name, in the words of distribution/reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// Not by the grammar.
    #[error("invalid reference format")]
    Format,
    /// A letter of the repository is upper case.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// An image id in place of a name.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Identifier(String),
    /// Longer than 255 bytes.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// The digest is of an unknown kind or has the wrong length.
    #[error("invalid reference format: {0:?} is no sha256 or sha512 digest")]
    Digest(String),
}

impl Reference {
    /// Where it is pulled from: `docker.io`, `ghcr.io`, `127.0.0.1:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path there: `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag as written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest as written.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The last component of the repository: `nginx`.
    pub fn base(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or_default()
    }

    /// `registry/repository`, as credentials and stores know it.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The name as people write it: without `docker.io` and `library`, where these go without saying.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        match self.repository.strip_prefix("library/") {
            Some(rest) if !rest.contains('/') => rest.to_owned(),
            _ => self.repository.clone(),
        }
    }

    /// The same with the tag `latest` when it has neither tag nor digest.
    pub fn with_default_tag(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The same repository, by digest only.
    pub fn at(&self, digest: &Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest.clone()),
            ..self.clone()
        }
    }

    /// What a registry is asked for: the digest, or else the tag. (kubelet: a digest beats the tag)
    pub fn asked(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }

    /// As people write it, tag and digest included.
    pub fn familiar(&self) -> String {
        self.familiar_name() + &self.tail()
    }

    fn tail(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}"));
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}"));
        tag.unwrap_or_default() + &digest.unwrap_or_default()
    }
}

/// In full: `docker.io/library/nginx:1.27`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name(), self.tail())
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        if text.len() == 64
            && text
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(InvalidReference::Identifier(text.to_owned()));
        }
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (text, None),
        };
        let (registry, rest) = split_registry(named);
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(InvalidReference::Uppercase(path.to_owned()));
        }
        let right = is_registry(&registry)
            && path.split('/').all(is_path_component)
            && tag.is_none_or(is_tag);
        if !right {
            return Err(InvalidReference::Format);
        }
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if registry.len() + 1 + repository.len() > NAME_BYTES_MAX {
            return Err(InvalidReference::TooLong);
        }
        let digest = digest
            .map(|digest| {
                let parsed: Result<Digest, _> = digest.parse();
                parsed.map_err(|_| InvalidReference::Digest(digest.to_owned()))
            })
            .transpose()?;
        Ok(Self {
            registry,
            repository,
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

/// The first component is a registry when it can't be a repository's. (normalize.go, splitDockerDomain)
fn split_registry(named: &str) -> (String, &str) {
    let found = named.split_once('/').filter(|(first, _)| {
        first.contains(['.', ':'])
            || *first == "localhost"
            || first.bytes().any(|byte| byte.is_ascii_uppercase())
    });
    match found {
        None | Some(("index.docker.io", _)) => {
            let rest = found.map_or(named, |(_, rest)| rest);
            (DEFAULT_REGISTRY.to_owned(), rest)
        }
        Some((registry, rest)) => (registry.to_owned(), rest),
    }
}

/// `host[:port]`. (reference.go, domain)
fn is_registry(text: &str) -> bool {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((host, port)) = rest.split_once(']') else {
            return false;
        };
        let hexadecimal = |byte: u8| byte.is_ascii_hexdigit() || byte == b':';
        if host.is_empty() || !host.bytes().all(hexadecimal) {
            return false;
        }
        match port.strip_prefix(':') {
            None => return port.is_empty(),
            Some(port) => ("ip", Some(port)),
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    host.split('.').all(label) && port.is_none_or(digits)
}

/// Lower-case letters and digits, held together by `.`, `_`, `__` or any number of `-`. (reference.go, path-component)
fn is_path_component(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().is_some_and(|b| word(*b)) && bytes.last().is_some_and(|b| word(*b));
    let separator = |run: &[u8]| {
        run.is_empty() || matches!(run, b"." | b"_" | b"__") || run.iter().all(|byte| *byte == b'-')
    };
    ends && bytes.split(|byte| word(*byte)).all(separator)
}

/// (reference.go, tag)
fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text
            .bytes()
            .all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, full: &str, familiar: &str) {
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.to_string(), full);
        assert_eq!(reference.familiar(), familiar);
    }

    #[track_caller]
    fn refused(text: &str, why: &str) {
        let error = text.parse::<Reference>().unwrap_err().to_string();
        assert_eq!(error, why, "{text}");
    }

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// distribution/reference, normalize_test.go.
    #[test]
    fn names_are_normalised() {
        check("nginx", "docker.io/library/nginx", "nginx");
        check("nginx:1.27", "docker.io/library/nginx:1.27", "nginx:1.27");
        check("bitnami/redis", "docker.io/bitnami/redis", "bitnami/redis");
        check("docker.io/nginx", "docker.io/library/nginx", "nginx");
        check("index.docker.io/nginx", "docker.io/library/nginx", "nginx");
        check(
            "docker.io/library/nginx",
            "docker.io/library/nginx",
            "nginx",
        );
        check("library/a/b", "docker.io/library/a/b", "library/a/b");
        check("ghcr.io/o/app:v1", "ghcr.io/o/app:v1", "ghcr.io/o/app:v1");
        check("localhost/app", "localhost/app", "localhost/app");
        check("localhost:5000/a", "localhost:5000/a", "localhost:5000/a");
        check("[::1]:5000/a/b:t", "[::1]:5000/a/b:t", "[::1]:5000/a/b:t");
        check("REG/a", "REG/a", "REG/a");
        check(
            "a__b/c-----d.e",
            "docker.io/a__b/c-----d.e",
            "a__b/c-----d.e",
        );
        let by_digest = format!("nginx:1@sha256:{HEX}");
        check(
            &by_digest,
            &format!("docker.io/library/{by_digest}"),
            &by_digest,
        );
        // Without a slash there is no port.
        check(
            "localhost:5000",
            "docker.io/library/localhost:5000",
            "localhost:5000",
        );
    }

    #[test]
    fn what_is_no_name_says_why() {
        for text in [
            "",
            ":",
            "a:",
            "a//b",
            "/a",
            "a/",
            "a:b:c",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "_a",
            "a b",
            "a:-t",
            "é",
            "http://a/b",
            "-reg.io/a",
            "reg.:80/a",
            "reg:/a",
            "reg:8x/a",
            "[::1/a",
            "[]/a",
            "[::1]5000/a",
            "a:t/b",
            "a\n",
        ] {
            refused(text, "invalid reference format");
        }
        refused(
            "Ubuntu:22.04",
            "invalid reference format: repository name (Ubuntu) must be lowercase",
        );
        refused(
            "ghcr.io/Org/app",
            "invalid reference format: repository name (Org/app) must be lowercase",
        );
        refused(
            HEX,
            &format!("invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings"),
        );
        refused(
            "a@sha256:abc",
            "invalid reference format: \"sha256:abc\" is no sha256 or sha512 digest",
        );
        let long = "a".repeat(240);
        refused(
            &long,
            "repository name must not be more than 255 characters",
        );
        refused(
            &format!("a:{}", "t".repeat(129)),
            "invalid reference format",
        );
    }

    #[test]
    fn what_is_asked_for() {
        let asked = |text: &str| {
            text.parse::<Reference>()
                .unwrap()
                .with_default_tag()
                .asked()
        };
        assert_eq!(asked("nginx"), "latest");
        assert_eq!(asked("nginx:1"), "1");
        assert_eq!(
            asked(&format!("nginx:1@sha256:{HEX}")),
            format!("sha256:{HEX}")
        );
        assert_eq!("a/b/podkit".parse::<Reference>().unwrap().base(), "podkit");
    }

    proptest! {
        /// Whatever is accepted means the same when its full and its familiar form are read again.
        #[test]
        fn forms_mean_the_same(text in "([A-Za-z0-9.-]{1,8}(:[0-9]{1,4})?/)?[a-z0-9._-]{1,8}(/[a-z0-9._-]{1,8}){0,2}(:[A-Za-z0-9._-]{1,8})?") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
                prop_assert_eq!(&reference.familiar().parse::<Reference>().unwrap(), &reference);
            }
        }

        /// No text of any kind is more than refused.
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
            let _read: Result<Reference, _> = text.parse();
        }

        /// By the grammar's own rules.
        #[test]
        fn what_the_grammar_makes_is_read(
            registry in "([a-zA-Z0-9]([a-zA-Z0-9-]{0,4}[a-zA-Z0-9])?\\.){1,2}[a-z]{2,3}(:[0-9]{1,5})?",
            path in "[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}){1,2}",
            tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}",
        ) {
            let text = format!("{registry}/{path}:{tag}");
            let reference: Reference = text.parse().unwrap();
            prop_assert_eq!(reference.registry(), registry);
            prop_assert_eq!(reference.repository(), path);
            prop_assert_eq!(reference.tag(), Some(tag.as_str()));
        }
    }
}
