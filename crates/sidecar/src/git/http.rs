//! Requests to a server, for a thread that may wait: hyper on a runtime of the thread's own, the connection kept from
//! one poll to the next.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION, PROXY_AUTHORIZATION, USER_AGENT};
use hyper::{HeaderMap, Method, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Runtime;

use super::location::Url;
use crate::dial::{self, Stream};
use crate::proxy::{Proxies, Proxy};

/// How long it may take until a server can be asked.
pub(super) const CONNECT: Duration = Duration::from_secs(15);
/// Without a byte for so long, the other side is held to be gone.
const SILENCE: Duration = Duration::from_secs(60);
/// hyper reads into buffers of so many bytes at most.
const BUFFER_BYTES_MAX: usize = 128 * 1024;
const REDIRECTIONS_MAX: usize = 5;

type Sender = SendRequest<Full<Bytes>>;

/// Asks servers. One per thread that waits.
pub(super) struct Client {
    runtime: Arc<Runtime>,
    tls: Option<Arc<ClientConfig>>,
    proxies: Arc<Proxies>,
    /// The connection that was used last, and where it leads.
    kept: Option<(bool, String, Sender)>,
}

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Request<'a> {
    pub(super) method: Method,
    /// The path and what follows it are added to the URL's.
    pub(super) path: &'a str,
    pub(super) headers: &'a [(&'static str, &'a str)],
    pub(super) content_type: Option<&'a str>,
    pub(super) body: Vec<u8>,
    /// Of the Authorization field. Shown to no other host.
    pub(super) authorization: Option<String>,
}

/// An answer whose body is yet to be read.
pub(super) struct Answer<'a> {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Where it came from when redirections were followed.
    pub(super) url: Url,
    pub(super) body: Body<'a>,
}

impl Client {
    pub(super) fn new(proxies: Arc<Proxies>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            runtime: Arc::new(runtime),
            tls: None,
            proxies,
            kept: None,
        })
    }

    /// What drives other conversations of this thread.
    pub(super) fn runtime(&self) -> Arc<Runtime> {
        self.runtime.clone()
    }

    /// Sends a request. A GET follows where it is sent to, as git does.
    pub(super) fn send(
        &mut self,
        url: &Url,
        request: Request<'_>,
        deadline: Instant,
    ) -> Result<Answer<'_>, String> {
        let (mut url, mut request) = (url.clone(), request);
        let mut left = REDIRECTIONS_MAX;
        let response = loop {
            let response = self.exchange(&url, &request, deadline)?;
            let location = response.headers().get(LOCATION);
            let location = location.and_then(|location| location.to_str().ok());
            let Some(location) = location.filter(|_| response.status().is_redirection()) else {
                break response;
            };
            if request.method != Method::GET {
                return Err(format!("{url} answers {} to a POST", response.status()));
            }
            let next = redirected(&url, request.path, location)?;
            left = left
                .checked_sub(1)
                .ok_or_else(|| format!("{url}: too many redirections"))?;
            if (url.tls, &url.host, url.port) != (next.tls, &next.host, next.port) {
                request.authorization = None;
            }
            url = next;
        };
        let (head, incoming) = response.into_parts();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            url,
            body: Body {
                runtime: &self.runtime,
                incoming,
                rest: Bytes::new(),
                deadline,
            },
        })
    }

    /// One request and the head of its answer. A kept connection may have been closed meanwhile: then another is made.
    fn exchange(
        &mut self,
        url: &Url,
        request: &Request<'_>,
        deadline: Instant,
    ) -> Result<Response<Incoming>, String> {
        let authority = url.authority();
        let kept = self.kept.take();
        let kept = kept.filter(|(tls, to, _)| (*tls, to) == (url.tls, &authority));
        let proxy = self.proxies.of(url.tls, &url.host, url.port);
        let wants_tls = url.tls || proxy.is_some_and(|proxy| proxy.tls);
        if wants_tls && self.tls.is_none() {
            self.tls = Some(tls_config()?);
        }
        let tls = self.tls.clone();
        let runtime = &self.runtime;
        let reused = match kept {
            Some((_, _, mut sender)) => runtime.block_on(async {
                // The connection's own task has to see first that it was closed.
                tokio::task::yield_now().await;
                sender.ready().await.ok()?;
                Some(sender)
            }),
            None => None,
        };
        let shown = |error: &hyper::Error| format!("{url}: {}", cause(error));
        if let Some(mut sender) = reused {
            let sent = sender.send_request(request.build(url, proxy)?);
            match runtime.block_on(within(deadline, sent)) {
                Some(Ok(response)) => {
                    self.kept = Some((url.tls, authority, sender));
                    return Ok(response);
                }
                Some(Err(_)) => {}
                None => return Err(format!("{url} does not answer")),
            }
        }
        let connecting = within(
            deadline.min(Instant::now() + CONNECT),
            connect(url, tls, proxy),
        );
        let stream = runtime
            .block_on(connecting)
            .unwrap_or_else(|| Err(format!("{url}: connecting took too long")))?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER_BYTES_MAX);
        let shaken = runtime.block_on(builder.handshake(TokioIo::new(stream)));
        let (mut sender, connection) = shaken.map_err(|error| shown(&error))?;
        drop(runtime.spawn(async move {
            // What goes wrong is told where the answer is read.
            drop(connection.await);
        }));
        let sent = sender.send_request(request.build(url, proxy)?);
        match runtime.block_on(within(deadline, sent)) {
            Some(Ok(response)) => {
                self.kept = Some((url.tls, authority, sender));
                Ok(response)
            }
            Some(Err(error)) => Err(shown(&error)),
            None => Err(format!("{url} does not answer")),
        }
    }
}

impl Request<'_> {
    fn build(
        &self,
        url: &Url,
        proxy: Option<&Proxy>,
    ) -> Result<hyper::Request<Full<Bytes>>, String> {
        // Through a tunnel the proxy sees nothing.
        let proxy = proxy.filter(|_| !url.tls);
        let uri = match proxy {
            Some(_) => format!("{url}{}", self.path),
            None => format!("{}{}", url.path, self.path),
        };
        let mut builder = hyper::Request::builder()
            .method(self.method.clone())
            .uri(uri)
            .header(HOST, url.authority())
            .header(
                USER_AGENT,
                format!("git/podkit-{}", podkit_foundation::VERSION),
            );
        for (name, value) in self.headers {
            builder = builder.header(*name, *value);
        }
        if let Some(content_type) = self.content_type {
            builder = builder.header(CONTENT_TYPE, content_type);
        }
        if let Some(authorization) = &self.authorization {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        if let Some(authorization) = proxy.and_then(Proxy::authorization) {
            builder = builder.header(PROXY_AUTHORIZATION, authorization);
        }
        let body = Full::new(Bytes::from(self.body.clone()));
        builder
            .body(body)
            .map_err(|error| format!("{url}: {error}"))
    }
}

/// The future's value, or None when it is not there in time.
pub(super) async fn within<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    tokio::time::timeout_at(deadline.into(), future).await.ok()
}

/// The new base of a repository whose `path` was redirected.
fn redirected(from: &Url, path: &str, location: &str) -> Result<Url, String> {
    let whole = match location.starts_with('/') {
        true => {
            let scheme = if from.tls { "https" } else { "http" };
            format!("{scheme}://{}{location}", from.authority())
        }
        false => location.to_owned(),
    };
    let base = whole
        .strip_suffix(path)
        .ok_or_else(|| format!("{from} leads to {location}, which is no repository"))?;
    let to = Url::parse(base).map_err(|why| format!("{from} leads to {location}, which {why}"))?;
    match from.tls && !to.tls {
        true => Err(format!("{from} leads to {to}, which is not encrypted")),
        false => Ok(to),
    }
}

async fn connect(
    url: &Url,
    tls: Option<Arc<ClientConfig>>,
    proxy: Option<&Proxy>,
) -> Result<Box<dyn Stream>, String> {
    let shown = |why: String| format!("{url}: {why}");
    let stream = match proxy {
        None => {
            let tcp = dial::tcp(&url.host, url.port).await;
            Box::new(tcp.map_err(|why| format!("connecting to {why}"))?)
        }
        Some(proxy) if url.tls => {
            let tunnel = proxy.tunnel(tls.clone(), &url.host, url.port).await;
            tunnel.map_err(shown)?
        }
        Some(proxy) => proxy.reach(tls.clone()).await.map_err(shown)?,
    };
    match tls.filter(|_| url.tls) {
        None => Ok(stream),
        Some(config) => dial::tls(config, &url.host, stream)
            .await
            .map_err(|why| format!("{url}: TLS: {why}")),
    }
}

/// Trusts the authorities of the machine or of the image.
fn tls_config() -> Result<Arc<ClientConfig>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(
            "there are no certificates of authorities for https; expected /etc/ssl/certs, or a file that SSL_CERT_FILE names"
                .to_owned(),
        );
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS can't be configured: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// hyper's words and what they hide.
fn cause(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The body of an answer, for reading.
pub(super) struct Body<'a> {
    runtime: &'a Runtime,
    incoming: Incoming,
    rest: Bytes,
    deadline: Instant,
}

impl Body<'_> {
    /// All of it as a text, if it isn't longer than `limit`.
    pub(super) fn text(self, limit: u64) -> Result<String, String> {
        let mut text = Vec::new();
        let read = self.take(limit).read_to_end(&mut text);
        read.map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

impl Read for Body<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let deadline = self.deadline.min(Instant::now() + SILENCE);
            let frame = self
                .runtime
                .block_on(within(deadline, self.incoming.frame()));
            let frame = frame.ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut))?;
            match frame {
                None => return Ok(0),
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Err(io::Error::other(cause(&error))),
            }
        }
        let count = self.rest.len().min(out.len());
        out[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}
