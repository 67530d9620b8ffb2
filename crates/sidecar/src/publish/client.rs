//! A small HTTP/1.1 client for what a sidecar asks of others: a source's state, a reload, a confirmation.
//!
//! One connection a request: requests are seconds apart, and a kept connection would have to be tended.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use podkit_dataplane::tls::{MadeOf, OriginFile, OriginFiles};
use podkit_foundation::params::{ParamError, Size};
use rustls::ClientConfig;

use crate::dial;
use crate::proxy::{Proxies, Proxy};

/// `http://HOST[:PORT]/PATH` or `https://…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    tls: bool,
    host: String,
    port: u16,
    /// Path and query; begins with `/`.
    target: String,
}

impl Url {
    /// Reads it; an error says why it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => {
                return Err(format!(
                    "\"{text}\" is not http://HOST/PATH or https://HOST/PATH"
                ));
            }
        };
        let split = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(split);
        let target = match target.starts_with('/') {
            true => target.to_owned(),
            false => format!("/{target}"),
        };
        if authority.contains('@') {
            return Err("credentials don't belong in a URL; name a file".to_owned());
        }
        if !target.bytes().all(|byte| (b'!'..=b'~').contains(&byte)) || target.contains('#') {
            return Err(format!(
                "the path {target:?} has what belongs in no URL; write it as %XX"
            ));
        }
        let usual = if tls { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port
                    .parse()
                    .map_err(|_| format!("\"{port}\" is not a port"))?;
                (host, port)
            }
            _ => (authority, usual),
        };
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let right = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        if host.is_empty() || !host.bytes().all(right) || bare.is_none() && host.contains(':') {
            return Err(format!("\"{host}\" is not a host"));
        }
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
            target,
        })
    }

    /// The same server, another path.
    pub fn with_target(&self, target: &str) -> Self {
        Self {
            target: target.to_owned(),
            ..self.clone()
        }
    }

    /// Path and query.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// `https://`.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.target)
    }
}

/// How long a connection may take, TLS included.
const CONNECT: Duration = Duration::from_secs(10);

/// Asks. Clones share.
#[derive(Debug, Clone, Default)]
pub struct Client(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// None: those of the system, and no certificate.
    files: Option<OriginFiles>,
    /// Made when it is first needed: the system's authorities take memory.
    tls: Mutex<Tls>,
    proxies: Proxies,
}

#[derive(Debug, Default)]
struct Tls {
    made: Option<MadeOf<Arc<ClientConfig>>>,
    /// What is wrong with the files as they are now; what was made of the former ones is used.
    refusal: Option<String>,
}

impl Client {
    /// Trusts these authorities, or those of the system, shows this certificate, and asks by these proxies. The files are read again
    /// with every connection.
    pub(crate) fn new(files: OriginFiles, proxies: Proxies) -> Self {
        Self(Arc::new(Inner {
            files: Some(files),
            tls: Mutex::default(),
            proxies,
        }))
    }

    /// Whether the files are good, by the names of the parameters `ca`, `cert` and `key`.
    pub fn check(&self) -> Result<(), ParamError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let files = self.0.files.clone().unwrap_or_default();
        let made = files.config(&provider, None);
        made.map(drop)
            .map_err(|(file, why)| ParamError::new(field(file), why))
    }

    /// Sends a request; returns when the answer's head is there. An error is a clause that follows the URL.
    pub async fn send(
        &self,
        method: &str,
        url: &Url,
        fields: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<http::Response<Incoming>, String> {
        let proxy = self.0.proxies.of(url.tls, &url.host, url.port);
        // Through a tunnel the proxy sees nothing.
        let reads = proxy.filter(|_| !url.tls);
        let uri = match reads {
            Some(_) => url.to_string(),
            None => url.target.clone(),
        };
        let mut request = http::Request::builder()
            .method(method)
            .uri(uri)
            .header("Host", url.authority())
            .header("User-Agent", concat!("podkit/", env!("CARGO_PKG_VERSION")));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = reads.and_then(Proxy::authorization) {
            request = request.header("Proxy-Authorization", authorization);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| format!("can't be asked ({error})"))?;
        let connecting = tokio::time::timeout(CONNECT, self.connect(url, proxy));
        let mut sender = connecting
            .await
            .map_err(|_| format!("no connection within {} s", CONNECT.as_secs()))??;
        let answer = sender.send_request(request).await;
        answer.map_err(|error| {
            let why = chain(&error);
            let files = self.0.files.as_ref();
            let nothing_shown = files.is_some_and(|files| files.cert.is_none());
            // A server's words for having been shown nothing.
            let wanted = ["CertificateRequired", "BadCertificate"].map(|word| why.contains(word));
            match nothing_shown && wanted.contains(&true) {
                true => format!("no answer ({why}); it wants a certificate, which --cert names"),
                false => format!("no answer ({why})"),
            }
        })
    }

    async fn connect(
        &self,
        url: &Url,
        proxy: Option<&Proxy>,
    ) -> Result<hyper::client::conn::http1::SendRequest<Full<Bytes>>, String> {
        let wants_tls = url.tls || proxy.is_some_and(|proxy| proxy.tls);
        let config = wants_tls.then(|| self.tls()).transpose()?;
        let stream = match proxy {
            None => {
                let tcp = dial::tcp(&url.host, url.port).await;
                Ok(Box::new(tcp.map_err(|why| format!("can't be connected to ({why})"))?) as _)
            }
            Some(proxy) if url.tls => proxy.tunnel(config.clone(), &url.host, url.port).await,
            Some(proxy) => proxy.reach(config.clone()).await,
        };
        let stream = stream.map_err(|why| format!("can't be reached: {why}"))?;
        match config.filter(|_| url.tls) {
            None => shake(TokioIo::new(stream)).await,
            Some(config) => {
                let tls = dial::tls(config, &url.host, stream).await;
                shake(TokioIo::new(
                    tls.map_err(|why| format!("TLS failed ({why})"))?,
                ))
                .await
            }
        }
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, String> {
        let mut tls = self.0.tls.lock().unwrap_or_else(PoisonError::into_inner);
        let known = tls.made.as_ref().map(|(_, digest)| *digest);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let files = self.0.files.clone().unwrap_or_default();
        match (files.config(&provider, known), &tls.made) {
            (Ok(Some((config, digest))), _) => {
                let config = Arc::new(config);
                tls.made = Some((Arc::clone(&config), digest));
                tls.refusal = None;
                Ok(config)
            }
            (Ok(None), made) => {
                let (config, _) = made.as_ref().expect("it was known");
                let config = Arc::clone(config);
                tls.refusal = None;
                Ok(config)
            }
            (Err((file, why)), Some((config, _))) => {
                let config = Arc::clone(config);
                let line = format!("--{} {why}", field(file));
                if tls.refusal.as_ref() != Some(&line) {
                    tracing::warn!("refused, the former state stays in force: {line}");
                }
                tls.refusal = Some(line);
                Ok(config)
            }
            (Err((file, why)), None) => Err(format!("can't be asked: --{} {why}", field(file))),
        }
    }

    /// Asks and wants a 2xx answer, from a thread that may block.
    pub fn expect_success(&self, method: &str, url: &Url, timeout: Duration) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("{url} can't be asked ({error})"))?;
        let asked = async {
            let answer = self.send(method, url, &[], Vec::new()).await?;
            let status = answer.status();
            if status.is_success() {
                return Ok(());
            }
            let said = collect(answer.into_body(), 4096).await.unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            let line = said.lines().next().unwrap_or_default();
            Err(format!("answered {}: {line}", status.as_u16()))
        };
        let done = runtime.block_on(async { tokio::time::timeout(timeout, asked).await });
        done.unwrap_or_else(|_| Err(format!("no answer within {} ms", timeout.as_millis())))
            .map_err(|why| format!("{url} {why}"))
    }
}

fn field(file: OriginFile) -> &'static str {
    match file {
        OriginFile::Ca => "ca",
        OriginFile::Cert => "cert",
        OriginFile::Key => "key",
    }
}

async fn shake<T>(
    io: TokioIo<T>,
) -> Result<hyper::client::conn::http1::SendRequest<Full<Bytes>>, String>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let shaken = hyper::client::conn::http1::handshake(io).await;
    let (sender, connection) = shaken.map_err(|error| format!("no answer ({error})"))?;
    // Ends with the answer, whose reader hears of its errors.
    drop(tokio::spawn(connection));
    Ok(sender)
}

/// A body in whole; one that is longer than `most` bytes is an error.
pub async fn collect(mut body: Incoming, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the answer broke off ({})", chain(&error)))?;
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() as u64 > most {
            return Err(format!(
                "has more than {}; that is the most that is taken",
                Size(most)
            ));
        }
    }
    Ok(bytes)
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_written() {
        let check = |text: &str, shown: &str| {
            assert_eq!(
                Url::parse(text).map(|url| url.to_string()),
                Ok(shown.to_owned())
            );
        };
        check("http://h", "http://h:80/");
        check("https://h/a?b=c", "https://h:443/a?b=c");
        check("http://h:81?x", "http://h:81/?x");
        check("http://[::1]:81/", "http://[::1]:81/");
        check("http://[::1]", "http://[::1]:80/");
        for wrong in [
            "",
            "h",
            "ftp://h",
            "http://",
            "http:///x",
            "http://u:p@h/",
            "http://h:x/",
            "http://h:99999",
            "http://::1/",
            "http://h/ö",
            "http://h/a b",
            "http://h/#x",
            "http://a b/",
        ] {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
    }
}
