//! What a registry wants to be shown: a password, or a token that another server gives for one. (RFC 9110, 11.6; Docker
//! registry v2 authentication, token.md and oauth.md)

use std::io::Read;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Method};
use serde::Deserialize;

use super::Credential;
use super::connect::Connector;
use super::http::{Answer, Request, Url};
use crate::image::pull::PullError;

/// A token and what is around it.
const TOKEN_BYTES_MAX: u64 = 1 << 20;

/// The header `Authorization`.
#[derive(Clone)]
pub(super) struct Authorization(String);

impl Authorization {
    pub(super) fn header(&self) -> String {
        self.0.clone()
    }
}

/// `WWW-Authenticate` of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// The best that is offered.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter();
        let mut challenges = texts.filter_map(|text| Self::parse(text.to_str().ok()?));
        let first = challenges.next()?;
        let bearer = |challenge: &Self| matches!(challenge, Self::Bearer { .. });
        if bearer(&first) {
            return Some(first);
        }
        Some(challenges.find(bearer).unwrap_or(first))
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        for (name, value) in parameters(rest) {
            match name.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                "scope" => scope = Some(value),
                _ => {}
            }
        }
        Some(Self::Bearer {
            realm: realm?,
            service,
            scope,
        })
    }
}

/// `name="value", name=value`; a quoted value may have commas and escapes.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| *c == ' ' || *c == ',').is_some() {}
        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && *c != ',') {
            name.push(c);
        }
        if chars.next_if_eq(&'=').is_none() {
            return found;
        }
        let mut value = String::new();
        if chars.next_if_eq(&'"').is_some() {
            while let Some(c) = chars.next() {
                match c {
                    '"' => break,
                    '\\' => value.extend(chars.next()),
                    c => value.push(c),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                value.push(c);
            }
        }
        found.push((name.trim().to_owned(), value));
    }
}

/// A token server's answer.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// What answers the challenge; none when there is nothing to show.
pub(super) fn authorize(
    connector: &Connector,
    challenge: &Challenge,
    credential: Option<&Credential>,
    repository: &str,
    push: bool,
) -> Result<Option<Authorization>, PullError> {
    let basic = match credential {
        Some(Credential::Password { username, password }) => {
            let pair = BASE64_STANDARD.encode(format!("{username}:{password}"));
            Some(format!("Basic {pair}"))
        }
        _ => None,
    };
    let (realm, service, scope) = match challenge {
        Challenge::Basic => return Ok(basic.map(Authorization)),
        Challenge::Bearer {
            realm,
            service,
            scope,
        } => (realm, service, scope),
    };
    if let Some(Credential::RegistryToken(token)) = credential {
        return Ok(Some(Authorization(format!("Bearer {token}"))));
    }
    let url = Url::parse(realm)?;
    if !url.tls && !url.is_loopback() {
        let message = format!("{realm} gives tokens and is not encrypted: nothing is shown to it");
        return Err(PullError::fatal(message));
    }
    let actions = if push { "pull,push" } else { "pull" };
    let scope = scope
        .clone()
        .unwrap_or_else(|| format!("repository:{repository}:{actions}"));
    let mut query = vec![("scope", scope)];
    query.extend(service.clone().map(|service| ("service", service)));
    let answer = if let Some(Credential::IdentityToken(token)) = credential {
        query.push(("grant_type", "refresh_token".to_owned()));
        query.push(("client_id", "podkit".to_owned()));
        query.push(("refresh_token", token.clone()));
        let request = Request {
            method: &Method::POST,
            url: url.clone(),
            headers: &[(CONTENT_TYPE, "application/x-www-form-urlencoded".to_owned())],
            authorization: None,
        };
        let sent = connector.send(&request, Bytes::from(encoded(&query)));
        sent.map_err(|failed| PullError::from(failed).doing(&url))?
    } else {
        let separator = if url.path.contains('?') { '&' } else { '?' };
        let path = format!("{}{separator}{}", url.path, encoded(&query));
        let request = Request {
            method: &Method::GET,
            url: Url {
                path,
                ..url.clone()
            },
            headers: &[],
            authorization: basic,
        };
        connector.follow(request, &Bytes::new())?
    };
    read_token(answer, &url).map(Some)
}

fn read_token(mut answer: Answer, url: &Url) -> Result<Authorization, PullError> {
    let status = answer.status;
    if !status.is_success() {
        let said = super::error_text(&mut answer).map(|said| format!(": {said}"));
        let message = format!("{url} gives no token: {status}{}", said.unwrap_or_default());
        return Err(if status.is_server_error() {
            PullError::transient(message)
        } else {
            PullError::fatal(message)
        });
    }
    let mut bytes = Vec::new();
    let read = (&mut answer.body)
        .take(TOKEN_BYTES_MAX)
        .read_to_end(&mut bytes);
    read.map_err(PullError::transient)?;
    let token: Token = serde_json::from_slice(&bytes)
        .map_err(|error| PullError::fatal(format!("{url}: it is no token: {error}")))?;
    let token = token
        .token
        .or(token.access_token)
        .filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| PullError::fatal(format!("{url}: there is no token in it")))?;
    Ok(Authorization(format!("Bearer {token}")))
}

/// `application/x-www-form-urlencoded`.
fn encoded(pairs: &[(&str, String)]) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for (name, value) in pairs {
        if !text.is_empty() {
            text.push('&');
        }
        text += name;
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    text.push(byte.into());
                }
                _ => write!(text, "%{byte:02X}").expect("writing to a String can't fail"),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges() {
        let bearer = Challenge::parse(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push",error=x"#,
        );
        assert_eq!(
            bearer,
            Some(Challenge::Bearer {
                realm: "https://auth.docker.io/token".into(),
                service: Some("registry.docker.io".into()),
                scope: Some("repository:a/b:pull,push".into()),
            })
        );
        assert_eq!(
            Challenge::parse("basic realm=\"x\""),
            Some(Challenge::Basic)
        );
        assert_eq!(Challenge::parse("Negotiate"), None);
        assert_eq!(Challenge::parse("Bearer service=x"), None);
        assert_eq!(
            encoded(&[("a", "b c:d/é".to_owned()), ("e", String::new())]),
            "a=b%20c%3Ad%2F%C3%A9&e="
        );
    }

    proptest! {
        #[test]
        fn any_challenge_is_read_or_not(text in "(Bearer |Basic )?\\PC{0,60}") {
            let _read = Challenge::parse(&text);
        }
    }
}
