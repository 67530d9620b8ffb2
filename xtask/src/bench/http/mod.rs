//! `podkit balance` and `podkit limit` against nginx, HAProxy, Envoy and Caddy: reverse proxies in front of the same plain nginx, one
//! worker each.
//!
//! Every case starts its servers anew, measures them in interleaved rounds, and stops them. What is compared is CPU per request:
//! on a machine that others use too it moves less than requests per second.

mod cases;
mod idle;
mod latency;
mod load;
mod page;
mod quota;
mod servers;
mod syscalls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use podkit_testkit::certs::{Authority, Pair};
use podkit_testkit::net::free_addr;
use podkit_testkit::peers::{Server, nginx};

use super::{Effort, LOAD_CORE};
use crate::machine::{envoy, require};

/// The name in the certificate and in every request.
const NAME: &str = "localhost";

/// What all cases stand on.
struct Ground {
    podkit: PathBuf,
    /// None where it can't be had.
    envoy: Option<PathBuf>,
    pair: Pair,
    /// Serves `/small`, 100 bytes, and `/1m` on TCP and on a unix socket.
    _upstream: Server,
    tcp: SocketAddr,
    unix: PathBuf,
}

pub(crate) fn run(binary: &Path, effort: Effort) -> Result<()> {
    require(&[
        "nginx", "haproxy", "caddy", "h2load", "wrk", "strace", "taskset",
    ])?;
    let tcp = free_addr();
    let upstream = upstream(tcp)?;
    let ground = Ground {
        podkit: binary.to_path_buf(),
        envoy: envoy(),
        pair: Authority::new("podkit bench").server(&[NAME]),
        unix: upstream.dir().join("up.sock"),
        _upstream: upstream,
        tcp,
    };
    let measured = cases::measure(&ground, effort)?;
    let idle = idle::measure(&ground, effort)?;
    let latency = latency::measure(&ground, &measured, effort)?;
    page::write(&ground, &measured, &idle, &latency, effort)
}

/// nginx with a fixed answer of 100 bytes and a file.
fn upstream(tcp: SocketAddr) -> Result<Server> {
    let body = "x".repeat(100);
    let config = format!(
        "server {{ listen {tcp}; listen unix:DIR/up.sock; root DIR;\n\
         location = /small {{ default_type text/plain; return 200 {body}; }} }}"
    );
    let server = nginx(&config, None, tcp, Some(LOAD_CORE));
    std::fs::write(server.dir().join("1m"), vec![b'x'; 1 << 20])?;
    Ok(server)
}
