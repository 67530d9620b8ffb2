//! One request and its answer, for a caller that blocks.

use std::fmt;
use std::io::{self, Read};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderName;
use hyper::{HeaderMap, Method, StatusCode, Uri};
use tokio::runtime::Runtime;

use super::super::pull::PullError;

/// Without a byte.
const STALL: Duration = Duration::from_secs(60);

/// `http` or `https`, a host, a port, and what is behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::image) struct Url {
    pub(super) tls: bool,
    /// IPv6 in brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Path and query.
    pub(super) path: String,
}

impl Url {
    pub(super) fn parse(text: &str) -> Result<Self, PullError> {
        let wrong = || PullError::fatal(format!("{text:?} is no http or https URL"));
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or_else(wrong)?;
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
            path: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
        })
    }

    /// Where a redirection leads.
    pub(super) fn join(&self, location: &str) -> Result<Self, PullError> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Ok(Self {
                path: location.to_owned(),
                ..self.clone()
            });
        }
        Self::parse(location)
    }

    /// The same scheme, host and port: what may be shown to one may be shown to the other.
    pub(super) fn same_origin(&self, other: &Self) -> bool {
        (self.tls, &self.host, self.port) == (other.tls, &other.host, other.port)
    }

    /// `host` or `host:port`.
    pub(super) fn authority(&self) -> String {
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => self.host.clone(),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// What is asked.
pub(super) struct Request<'a> {
    pub(super) method: &'a Method,
    pub(super) url: Url,
    pub(super) headers: &'a [(HeaderName, String)],
    pub(super) authorization: Option<String>,
}

/// What is answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

/// A body that is read as it comes. It drives its connection.
pub(in crate::image) struct Body {
    runtime: Runtime,
    incoming: Incoming,
    piece: Bytes,
}

impl Body {
    /// The runtime is the one that the connection runs on.
    pub(in crate::image) fn new(runtime: Runtime, incoming: Incoming) -> Self {
        Self {
            runtime,
            incoming,
            piece: Bytes::new(),
        }
    }
}

/// A request's body.
pub(super) type Content = Full<Bytes>;

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let incoming = &mut self.incoming;
            let frame = self
                .runtime
                .block_on(async { tokio::time::timeout(STALL, incoming.frame()).await });
            match frame {
                Err(_) => {
                    let why = format!("nothing came for {} seconds", STALL.as_secs());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, why));
                }
                Ok(None) => return Ok(0),
                Ok(Some(Err(error))) => return Err(io::Error::other(cause(&error))),
                Ok(Some(Ok(frame))) => self.piece = frame.into_data().unwrap_or_default(),
            }
        }
        let taken = self.piece.len().min(into.len());
        into[..taken].copy_from_slice(&self.piece[..taken]);
        self.piece.advance(taken);
        Ok(taken)
    }
}

/// hyper's errors say little; what is behind them says why.
pub(super) fn cause(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
