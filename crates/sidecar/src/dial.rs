//! Connections to servers by their name or address, straight or by a proxy.
//!
//! Names are looked up by the data plane: the binary is static, and glibc's resolver would need its shared libraries.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A peer that is silent for this long is asked whether it is there, so often; then the connection has ended. An answer may be a
/// watch that says nothing for days.
const QUIET: Duration = Duration::from_secs(15);
const ASKED: Duration = Duration::from_secs(5);
const ASKED_TIMES: u32 = 3;

/// A connection, encrypted or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// The first of the host's addresses that takes a connection. An error begins with who was asked.
pub(crate) async fn tcp(host: &str, port: u16) -> Result<TcpStream, String> {
    let ips = match host.parse::<IpAddr>() {
        Ok(ip) => vec![ip],
        Err(_) => podkit_dataplane::upstream::lookup(host)
            .await
            .map_err(|why| format!("{host}: {why}"))?,
    };
    let mut last = format!("{host}: no address");
    for ip in ips {
        match TcpStream::connect((ip, port)).await {
            Ok(tcp) => {
                tcp.set_nodelay(true).map_err(|error| error.to_string())?;
                keep_asking(&tcp).ok();
                return Ok(tcp);
            }
            Err(error) => last = format!("{}: {error}", SocketAddr::new(ip, port)),
        }
    }
    Err(last)
}

fn keep_asking(tcp: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_tcp_keepidle(tcp, QUIET)?;
    sockopt::set_tcp_keepintvl(tcp, ASKED)?;
    sockopt::set_tcp_keepcnt(tcp, ASKED_TIMES)?;
    sockopt::set_socket_keepalive(tcp, true)
}

/// TLS with the server of that name.
pub(crate) async fn tls(
    config: Arc<ClientConfig>,
    host: &str,
    stream: Box<dyn Stream>,
) -> Result<Box<dyn Stream>, String> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| format!("{host} is no name for a certificate"))?;
    let shaken = TlsConnector::from(config).connect(name, stream).await;
    Ok(Box::new(shaken.map_err(|error| error.to_string())?))
}
