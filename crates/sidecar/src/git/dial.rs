//! TCP to a server by its name or address.

use std::net::IpAddr;
use std::time::Duration;

use tokio::net::TcpStream;

/// How long it may take until a server can be asked.
pub(super) const CONNECT: Duration = Duration::from_secs(15);

/// The first of the host's addresses that takes a connection.
pub(super) async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
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
                return Ok(tcp);
            }
            Err(error) => {
                last = format!(
                    "connecting to {}: {error}",
                    std::net::SocketAddr::new(ip, port)
                );
            }
        }
    }
    Err(last)
}
