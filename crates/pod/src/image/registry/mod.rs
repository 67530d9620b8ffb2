//! Registries: manifests and blobs by HTTP. (OCI distribution-spec 1.1, "Pull")
//!
//! One connection for each request, and no connection is shared by threads: a pull makes a handful of requests, and layers
//! want connections of their own anyway.

mod auth;
mod connect;
mod credentials;
mod http;
mod proxy;
mod push;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE, RETRY_AFTER};
use hyper::{HeaderMap, StatusCode};

use self::auth::{Authorization, Challenge};
pub(super) use self::credentials::Credential;
pub use self::credentials::{Keyring, KeyringError};
pub(super) use self::http::Body;
use self::http::{Answer, Request, Url};
use super::digest::{Algorithm, Digest, Hasher};
use super::manifest::{DOCUMENT_BYTES_MAX, Descriptor, media};
use super::pull::{Origin, PullError, check_document};
use super::reference::{DEFAULT_REGISTRY, Reference};

/// Of a request for a document.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
/// An error's text.
const ERROR_BYTES_MAX: u64 = 64 * 1024;

/// A repository of a registry, as one pull sees it.
pub(super) struct Registry {
    reference: Reference,
    connector: connect::Connector,
    /// What may be shown at the door; none: nothing.
    credentials: Vec<Credential>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    authorization: Option<Authorization>,
    /// The credential that it is of.
    candidate: usize,
    /// It has been taken.
    worked: bool,
}

impl Registry {
    /// Nothing is sent yet.
    pub(super) fn new(reference: &Reference, keyring: &Keyring) -> Result<Self, PullError> {
        let credentials = keyring.find(reference).map_err(PullError::fatal)?;
        let host = match reference.registry() {
            // What the names of Docker Hub mean.
            DEFAULT_REGISTRY => "registry-1.docker.io",
            host => host,
        };
        Ok(Self {
            reference: reference.clone(),
            connector: connect::Connector::new(host)?,
            credentials,
            state: Mutex::new(State::default()),
        })
    }

    /// What the name stands for now, without reading it: a HEAD, which registries don't count as a pull. None when the registry
    /// does not say.
    pub(super) fn digest(&self) -> Result<Option<Digest>, PullError> {
        let answer = self.retried(|| self.manifest(&Method::HEAD, &self.reference.asked()))?;
        Ok(header(&answer.headers, "docker-content-digest").and_then(|text| text.parse().ok()))
    }

    /// What the name stands for: its descriptor and bytes, checked against the digest when the name has one.
    pub(super) fn named(&self) -> Result<(Descriptor, Vec<u8>), PullError> {
        self.retried(|| {
            let mut answer = self.manifest(&Method::GET, &self.reference.asked())?;
            let media_type = header(&answer.headers, CONTENT_TYPE.as_str()).unwrap_or_default();
            let media_type = media_type
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned();
            let said = header(&answer.headers, "docker-content-digest");
            let said: Option<Digest> = said.and_then(|said| said.parse().ok());
            let bytes = read_document(&mut answer)?;
            let algorithm = self.reference.digest().or(said.as_ref());
            let algorithm = algorithm.map_or(Algorithm::Sha256, Digest::algorithm);
            let mut hasher = Hasher::new(algorithm);
            hasher.update(&bytes);
            let digest = hasher.finish();
            let descriptor = Descriptor::new(&media_type, digest, bytes.len() as u64);
            if let Some(wanted) = self.reference.digest() {
                check_document(
                    &Descriptor::new("", wanted.clone(), bytes.len() as u64),
                    &bytes,
                )?;
            }
            Ok((descriptor, bytes))
        })
    }

    fn manifest(&self, method: &Method, asked: &str) -> Result<Answer, PullError> {
        let path = format!("/v2/{}/manifests/{asked}", self.reference.repository());
        let accept = [
            media::OCI_INDEX,
            media::OCI_MANIFEST,
            media::DOCKER_LIST,
            media::DOCKER_MANIFEST,
            "*/*",
        ];
        let headers = vec![(ACCEPT, accept.join(", "))];
        let answer = self.send(method, &path, &headers)?;
        self.expect(answer, &[StatusCode::OK])
    }

    /// Tries again what may work the next time.
    fn retried<T>(&self, what: impl Fn() -> Result<T, PullError>) -> Result<T, PullError> {
        let mut pause = PAUSE;
        let mut tries = 1;
        loop {
            match what() {
                Err(error) if error.transient && tries < TRIES => {
                    std::thread::sleep(error.retry_after.unwrap_or(pause).min(10 * pause));
                    (tries, pause) = (tries + 1, pause * 2);
                }
                done => return done,
            }
        }
    }

    /// Sends a request, with what the registry wants to be shown.
    fn send(
        &self,
        method: &Method,
        path: &str,
        headers: &[(hyper::header::HeaderName, String)],
    ) -> Result<Answer, PullError> {
        self.send_content(method, self.connector.url(path), headers, &Bytes::new())
    }

    /// The same with a body, to a URL that the registry gave.
    fn send_content(
        &self,
        method: &Method,
        mut url: Url,
        headers: &[(hyper::header::HeaderName, String)],
        content: &Bytes,
    ) -> Result<Answer, PullError> {
        let push = !matches!(*method, Method::GET | Method::HEAD);
        let mut refreshed = false;
        loop {
            let (authorization, candidate, worked) = {
                let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                (state.authorization.clone(), state.candidate, state.worked)
            };
            let request = Request {
                method,
                url: url.clone(),
                headers,
                authorization: authorization.as_ref().map(Authorization::header),
            };
            let answer = self.connector.follow(request, content)?;
            // It may have turned out to speak plain HTTP.
            let own = self.connector.url(&url.path);
            if url.host == own.host {
                url = own;
            }
            let denied = answer.status == StatusCode::UNAUTHORIZED
                || answer.status == StatusCode::FORBIDDEN && candidate + 1 < self.credentials.len();
            if !denied {
                if authorization.is_some() && answer.status.is_success() {
                    self.state
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .worked = true;
                }
                return Ok(answer);
            }
            let next = match &authorization {
                None => candidate,
                // A token lasts for minutes, a pull may last longer.
                Some(_) if worked && !refreshed => candidate,
                Some(_) => candidate + 1,
            };
            refreshed = true;
            if next >= self.credentials.len().max(1) {
                return Ok(answer);
            }
            let Some(challenge) = Challenge::of(&answer.headers) else {
                return Ok(answer);
            };
            let credential = self.credentials.get(next);
            let repository = self.reference.repository();
            let authorization =
                auth::authorize(&self.connector, &challenge, credential, repository, push)?;
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if authorization.is_none() && next + 1 >= self.credentials.len() {
                drop(state);
                return Ok(answer);
            }
            *state = State {
                authorization,
                candidate: next,
                worked: false,
            };
        }
    }

    /// The answer, when its status is one of these; what the registry says otherwise.
    fn expect(&self, mut answer: Answer, statuses: &[StatusCode]) -> Result<Answer, PullError> {
        if statuses.contains(&answer.status) {
            return Ok(answer);
        }
        let name = &self.reference;
        let said = error_text(&mut answer);
        let said = |before: &str| {
            said.as_ref()
                .map(|said| format!("{before}{said}"))
                .unwrap_or_default()
        };
        let status = answer.status;
        let message = match status {
            StatusCode::NOT_FOUND => format!("{name}: not found{}", said(": ")),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => format!(
                "{name}: pull access denied, repository does not exist or may require authorization{}",
                said(": ")
            ),
            StatusCode::TOO_MANY_REQUESTS => format!("{name}: too many requests{}", said(": ")),
            _ => format!("{name}: the registry answered {status}{}", said(": ")),
        };
        let busy = status.is_server_error()
            || matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
            );
        let mut error = if busy {
            PullError::transient(message)
        } else {
            PullError::fatal(message)
        };
        let after = header(&answer.headers, RETRY_AFTER.as_str());
        error.retry_after = after
            .and_then(|text| text.parse().ok())
            .map(Duration::from_secs);
        Err(error)
    }
}

impl Origin for Registry {
    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read>, PullError> {
        let path = format!("/v2/{}/blobs/{}", self.reference.repository(), blob.digest);
        let mut headers = Vec::new();
        if from > 0 {
            headers.push((RANGE, format!("bytes={from}-")));
        }
        let answer = self.send(&Method::GET, &path, &headers)?;
        let answer = self.expect(answer, &[StatusCode::OK, StatusCode::PARTIAL_CONTENT])?;
        let mut skip = from;
        if answer.status == StatusCode::PARTIAL_CONTENT {
            let range = header(&answer.headers, CONTENT_RANGE.as_str()).unwrap_or_default();
            if !range.starts_with(&format!("bytes {from}-")) {
                let message =
                    format!("asked for bytes from {from} on, the registry gave {range:?}");
                return Err(PullError::fatal(message));
            }
            skip = 0;
        }
        let mut body = answer.body;
        let skipped = std::io::copy(&mut body.by_ref().take(skip), &mut std::io::sink())
            .map_err(PullError::transient)?;
        if skipped < skip {
            return Err(PullError::transient("it ended too early"));
        }
        Ok(Box::new(body))
    }

    fn document(&self, blob: &Descriptor) -> Result<Vec<u8>, PullError> {
        let is_manifest = [
            media::OCI_INDEX,
            media::OCI_MANIFEST,
            media::DOCKER_LIST,
            media::DOCKER_MANIFEST,
        ]
        .contains(&blob.media_type.as_str());
        self.retried(|| {
            let bytes = if is_manifest {
                read_document(&mut self.manifest(&Method::GET, &blob.digest.to_string())?)?
            } else {
                let mut bytes = Vec::new();
                let limit = blob.size.min(DOCUMENT_BYTES_MAX) + 1;
                let body = self.open(blob, 0)?;
                body.take(limit)
                    .read_to_end(&mut bytes)
                    .map_err(PullError::transient)?;
                bytes
            };
            check_document(blob, &bytes)?;
            Ok(bytes)
        })
    }
}

fn read_document(answer: &mut Answer) -> Result<Vec<u8>, PullError> {
    let too_long = || PullError::fatal(format!("a manifest may have {DOCUMENT_BYTES_MAX} bytes"));
    let length = header(&answer.headers, CONTENT_LENGTH.as_str());
    if length
        .and_then(|text| text.parse::<u64>().ok())
        .is_some_and(|length| length > DOCUMENT_BYTES_MAX)
    {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    let mut body = (&mut answer.body).take(DOCUMENT_BYTES_MAX + 1);
    body.read_to_end(&mut bytes).map_err(PullError::transient)?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(too_long());
    }
    Ok(bytes)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`. (distribution-spec, "Error Codes")
fn error_text(answer: &mut Answer) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(serde::Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let mut bytes = Vec::new();
    (&mut answer.body)
        .take(ERROR_BYTES_MAX)
        .read_to_end(&mut bytes)
        .ok()?;
    let errors: Errors = serde_json::from_slice(&bytes).ok()?;
    let first = errors.errors.into_iter().next()?;
    let text = if first.message.is_empty() {
        first.code
    } else {
        first.message
    };
    // A registry's bytes can't start a line or move the cursor.
    let text: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
    Some(text).filter(|text| !text.is_empty())
}

impl Url {
    /// On this machine: there plain HTTP is as good as TLS.
    pub(super) fn is_loopback(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || host.ends_with(".localhost")
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback())
    }
}
