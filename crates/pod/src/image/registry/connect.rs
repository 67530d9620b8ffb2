//! Connections: names, proxies, TLS, and where redirections lead.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, LOCATION, USER_AGENT};
use hyper::{StatusCode, Version};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::http::{Answer, Body, Content, Request, Url, cause};
use super::proxy::{Proxies, Proxy};
use crate::image::pull::PullError;

const CONNECT: Duration = Duration::from_secs(15);
/// For the first byte of an answer.
const ANSWER: Duration = Duration::from_secs(60);
const REDIRECTIONS_MAX: usize = 6;
/// hyper reads into buffers of so many bytes at most.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Of a proxy's answer to CONNECT.
const PROXY_HEAD_BYTES_MAX: usize = 8 * 1024;

/// How a registry is reached.
pub(super) struct Connector {
    host: String,
    port: Option<u16>,
    /// It is on this machine and speaks plain HTTP.
    plain: AtomicBool,
    proxies: Proxies,
    tls: OnceLock<Arc<ClientConfig>>,
}

/// A connection, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Connector {
    pub(super) fn new(authority: &str) -> Result<Self, PullError> {
        let url = Url::parse(&format!("https://{authority}/"))?;
        let (_, after) = authority.rsplit_once(']').unwrap_or(("", authority));
        let port = after.contains(':').then_some(url.port);
        Ok(Self {
            host: url.host,
            port,
            plain: AtomicBool::new(false),
            proxies: Proxies::of_environment().map_err(PullError::fatal)?,
            tls: OnceLock::new(),
        })
    }

    /// A path of the registry.
    pub(super) fn url(&self, path: &str) -> Url {
        let tls = !self.plain.load(Ordering::Relaxed);
        Url {
            tls,
            host: self.host.clone(),
            port: self.port.unwrap_or(if tls { 443 } else { 80 }),
            path: path.to_owned(),
        }
    }

    /// Sends a request and follows where it is sent to. What it shows at the door is shown to nobody else.
    pub(super) fn follow(
        &self,
        request: Request<'_>,
        content: &Bytes,
    ) -> Result<Answer, PullError> {
        let Request {
            method,
            mut url,
            headers,
            mut authorization,
        } = request;
        for _ in 0..REDIRECTIONS_MAX {
            let request = Request {
                method,
                url: url.clone(),
                headers,
                authorization: authorization.clone(),
            };
            let answer = match self.send(&request, content.clone()) {
                Err(Failed::Plain) => {
                    // Never elsewhere than on this machine.
                    self.plain.store(true, Ordering::Relaxed);
                    url.tls = false;
                    url.port = self.port.unwrap_or(80);
                    continue;
                }
                Err(Failed::Error(error)) => return Err(error.doing(&url)),
                Ok(answer) => answer,
            };
            let redirected = matches!(
                answer.status,
                StatusCode::MOVED_PERMANENTLY
                    | StatusCode::FOUND
                    | StatusCode::SEE_OTHER
                    | StatusCode::TEMPORARY_REDIRECT
                    | StatusCode::PERMANENT_REDIRECT
            );
            let location = answer
                .headers
                .get(LOCATION)
                .and_then(|location| location.to_str().ok());
            let Some(location) = location.filter(|_| redirected) else {
                return Ok(answer);
            };
            let next = url.join(location)?;
            if url.tls && !next.tls {
                let message = format!("{url} leads to {next}, which is not encrypted");
                return Err(PullError::fatal(message));
            }
            if !url.same_origin(&next) {
                authorization = None;
            }
            url = next;
        }
        Err(PullError::fatal(format!("{url}: too many redirections")))
    }

    /// Sends one request.
    pub(super) fn send(&self, request: &Request<'_>, content: Bytes) -> Result<Answer, Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(PullError::from)?;
        let response = runtime.block_on(self.exchange(request, content))?;
        let (head, incoming) = response.into_parts();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: Body::new(runtime, incoming),
        })
    }

    async fn exchange(
        &self,
        request: &Request<'_>,
        content: Bytes,
    ) -> Result<hyper::Response<hyper::body::Incoming>, Failed> {
        let url = &request.url;
        let proxy = self.proxies.of_url(url);
        if !url.tls && !url.is_loopback() {
            let message = "plain HTTP is for registries on this machine only";
            return Err(PullError::fatal(message).into());
        }
        let stream = match tokio::time::timeout(CONNECT, self.connect(url, proxy)).await {
            Ok(stream) => stream?,
            Err(_) => return Err(PullError::transient("connecting took too long").into()),
        };
        let mut builder = http1::Builder::new();
        builder.max_buf_size(BUFFER_BYTES_MAX);
        let shaken = builder.handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|e| PullError::transient(cause(&e)))?;
        tokio::spawn(async move {
            // What goes wrong is told where the answer is read.
            let _ended = connection.await;
        });
        let target = match proxy {
            Some(_) if !url.tls => url.to_string(),
            _ => url.path.clone(),
        };
        let mut builder = hyper::Request::builder()
            .method(request.method)
            .uri(target)
            .version(Version::HTTP_11)
            .header(HOST, url.authority())
            .header(USER_AGENT, format!("podkit/{}", podkit_foundation::VERSION));
        for (name, value) in request.headers {
            builder = builder.header(name, value);
        }
        if let Some(authorization) = &request.authorization {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        if let Some(authorization) = proxy.filter(|_| !url.tls).and_then(Proxy::authorization) {
            builder = builder.header("proxy-authorization", authorization);
        }
        let request = builder
            .body(Content::new(content))
            .map_err(PullError::fatal)?;
        match tokio::time::timeout(ANSWER, sender.send_request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(PullError::transient(cause(&error)).into()),
            Err(_) => {
                let message = format!("no answer for {} seconds", ANSWER.as_secs());
                Err(PullError::transient(message).into())
            }
        }
    }

    async fn connect(&self, url: &Url, proxy: Option<&Proxy>) -> Result<Box<dyn Stream>, Failed> {
        let mut tcp = match proxy {
            None => dial(&url.host, url.port).await?,
            Some(proxy) => dial(&proxy.host, proxy.port)
                .await
                .map_err(|error| error.doing(format!("the proxy {}", proxy.host)))?,
        };
        if !url.tls {
            return Ok(Box::new(tcp));
        }
        if let Some(proxy) = proxy {
            tunnel(&mut tcp, url, proxy).await?;
        }
        let config = match self.tls.get() {
            Some(config) => Arc::clone(config),
            None => {
                let made = tls_config(&self.host, self.port).map_err(PullError::fatal)?;
                Arc::clone(self.tls.get_or_init(|| made))
            }
        };
        let host = url.host.trim_start_matches('[').trim_end_matches(']');
        let name = match host.parse::<IpAddr>() {
            Ok(ip) => ServerName::IpAddress(ip.into()),
            Err(_) => ServerName::try_from(host.to_owned()).map_err(PullError::fatal)?,
        };
        match TlsConnector::from(config).connect(name, tcp).await {
            Ok(tls) => Ok(Box::new(tls)),
            Err(error) if url.is_loopback() && proxy.is_none() && speaks_no_tls(&error) => {
                Err(Failed::Plain)
            }
            Err(error) => Err(tls_error(&error).into()),
        }
    }
}

/// Why there is no answer.
pub(super) enum Failed {
    /// The other side is on this machine and does not speak TLS.
    Plain,
    Error(PullError),
}

impl From<PullError> for Failed {
    fn from(error: PullError) -> Self {
        Self::Error(error)
    }
}

impl From<Failed> for PullError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Plain => Self::fatal("it does not speak TLS"),
            Failed::Error(error) => error,
        }
    }
}

async fn dial(host: &str, port: u16) -> Result<TcpStream, PullError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ips = match host.parse::<IpAddr>() {
        Ok(ip) => vec![ip],
        Err(_) => podkit_dataplane::upstream::lookup(host)
            .await
            .map_err(|why| PullError::transient(format!("{host}: {why}")))?,
    };
    let mut last = PullError::transient(format!("{host}: no address"));
    for ip in ips {
        match TcpStream::connect((ip, port)).await {
            Ok(tcp) => {
                tcp.set_nodelay(true)?;
                return Ok(tcp);
            }
            Err(error) => last = PullError::transient(format!("dial {ip}:{port}: {error}")),
        }
    }
    Err(last)
}

/// Asks a proxy for a tunnel. (RFC 9110, 9.3.6)
async fn tunnel(tcp: &mut TcpStream, url: &Url, proxy: &Proxy) -> Result<(), PullError> {
    let target = format!("{}:{}", url.host, url.port);
    let mut head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(authorization) = proxy.authorization() {
        head += &format!("Proxy-Authorization: {authorization}\r\n");
    }
    head += "\r\n";
    let broken = |error: io::Error| PullError::transient(format!("the proxy: {error}"));
    tcp.write_all(head.as_bytes()).await.map_err(broken)?;
    let mut answer = Vec::new();
    // Byte by byte: what is behind the head is the tunnel's.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == PROXY_HEAD_BYTES_MAX {
            return Err(PullError::fatal("the proxy's answer is too long"));
        }
        answer.push(tcp.read_u8().await.map_err(broken)?);
    }
    let line = String::from_utf8_lossy(&answer);
    let line = line.lines().next().unwrap_or_default();
    match line.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(PullError::fatal(format!(
            "the proxy answered {line:?} to CONNECT {target}"
        ))),
    }
}

/// The certificate is not to blame: what came is no TLS, or nothing came.
fn speaks_no_tls(error: &io::Error) -> bool {
    match tls_cause(error) {
        Some(rustls::Error::InvalidMessage(_)) => true,
        Some(_) => false,
        None => matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        ),
    }
}

fn tls_cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn tls_error(error: &io::Error) -> PullError {
    match tls_cause(error) {
        Some(rustls::Error::InvalidCertificate(_)) => PullError::fatal(format!(
            "tls: {error}; a registry's own authority goes to /etc/docker/certs.d/HOST/ca.crt"
        )),
        Some(_) => PullError::fatal(format!("tls: {error}")),
        None => PullError::transient(format!("tls: {error}")),
    }
}

/// The machine's authorities (or `SSL_CERT_FILE`'s), and what is configured for this registry. (Docker, "Verify repository
/// client with certificates"; containers-certs.d(5))
fn tls_config(host: &str, port: Option<u16>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    let mut client = None;
    for directory in certs_directories(host, port) {
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let said = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => {
                    for certificate in certificates(&path)? {
                        roots.add(certificate).map_err(|error| said(&error))?;
                    }
                }
                Some("cert") => {
                    let key = PrivateKeyDer::from_pem_file(path.with_extension("key"))
                        .map_err(|error| said(&format!("its key: {error}")))?;
                    client = Some((certificates(&path)?, key));
                }
                _ => {}
            }
        }
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let config = match client {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("the client certificate for {host}: {error}"))?,
    };
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let said = |error: rustls::pki_types::pem::Error| format!("{}: {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(path).map_err(said)?;
    certificates.collect::<Result<_, _>>().map_err(said)
}

fn certs_directories(host: &str, port: Option<u16>) -> Vec<PathBuf> {
    let mut places = vec![
        PathBuf::from("/etc/containers/certs.d"),
        PathBuf::from("/etc/docker/certs.d"),
    ];
    if let Some(home) = std::env::var_os("HOME") {
        places.push(Path::new(&home).join(".config/containers/certs.d"));
    }
    let mut names = vec![host.to_owned()];
    names.extend(port.map(|port| format!("{host}:{port}")));
    let of_place = |place: PathBuf| {
        let names = names.iter();
        names.map(|name| place.join(name)).collect::<Vec<_>>()
    };
    places.into_iter().flat_map(of_place).collect()
}
