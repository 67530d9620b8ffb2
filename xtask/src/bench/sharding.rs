//! Proxies in front of several servers: `podkit shard`, and nutcracker (twemproxy), predixy and Envoy with the same servers.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use podkit_testkit::net::free_addr;
use podkit_testkit::peers::{self, Server, directory, launch};
use podkit_testkit::process::{Process, run as run_command};
use podkit_testkit::{http, program, until};

use super::SERVER_CORE;

/// A proxy that runs.
pub(super) struct Proxy {
    pub(super) name: &'static str,
    /// Servers behind it.
    pub(super) shards: usize,
    pub(super) addr: SocketAddr,
    pub(super) pid: u32,
    _server: Running,
}

#[expect(dead_code, reason = "held so that they run")]
enum Running {
    Peer(Server),
    Podkit(Process),
}

/// One worker, with these arguments besides.
pub(super) fn podkit(binary: &Path, shards: &[SocketAddr], more: &[&str]) -> Proxy {
    let (addr, admin) = (free_addr(), free_addr());
    let mut command = peers::pinned(Some(SERVER_CORE), binary);
    command
        .args(["shard", "--workers", "1", "--log-level", "warn"])
        .args(["--listen", &addr.to_string(), "--admin", &admin.to_string()])
        .args(more);
    for (at, shard) in shards.iter().enumerate() {
        command.arg(format!("--shard=s{at}={shard}"));
    }
    let process = Process::spawn("podkit shard", &mut command);
    until("podkit shard", || {
        assert!(!process.has_ended(), "{}", process.shown());
        http::get(admin, "/readyz")
            .ok()
            .filter(|answer| answer.status == 200)
    });
    Proxy {
        name: "podkit",
        shards: shards.len(),
        addr,
        pid: process.pid(),
        _server: Running::Podkit(process),
    }
}

/// `protocol`: a line of its pool.
pub(super) fn nutcracker(shards: &[SocketAddr], protocol: &str) -> Result<Proxy> {
    let (addr, stats_addr) = (free_addr(), free_addr());
    let dir = directory(None);
    let servers: String = shards
        .iter()
        .map(|shard| format!("   - {shard}:1\n"))
        .collect();
    let config = format!(
        "pool:\n  listen: {addr}\n  hash: fnv1a_64\n  distribution: ketama\n  {protocol}\n  servers:\n{servers}"
    );
    let file = dir.path().join("nutcracker.yml");
    std::fs::write(&file, config)?;
    let found = program("nutcracker").context("nutcracker is not installed")?;
    let mut command = peers::pinned(Some(SERVER_CORE), &found);
    let stats_port = stats_addr.port().to_string();
    command
        .arg("-c")
        .arg(&file)
        .args(["-s", &stats_port, "-a", "127.0.0.1", "-o"])
        .arg(dir.path().join("log"));
    let server = launch("nutcracker", dir, &mut command, addr);
    Ok(Proxy {
        name: "nutcracker",
        shards: shards.len(),
        addr,
        pid: server.process.pid(),
        _server: Running::Peer(server),
    })
}

/// None where it is not installed: Debian has no package of it.
pub(super) fn predixy(shards: &[SocketAddr]) -> Result<Option<Proxy>> {
    let Some(found) = program("predixy") else {
        return Ok(None);
    };
    let addr = free_addr();
    let dir = directory(None);
    let groups: String = shards
        .iter()
        .enumerate()
        .map(|(at, shard)| format!("  Group s{at} {{\n    + {shard}\n  }}\n"))
        .collect();
    let config = format!(
        "Name bench\nBind {addr}\nWorkerThreads 1\nLog {}\nAuthority {{\n  Auth {{\n    Mode write\n  }}\n}}\n\
         StandaloneServerPool {{\n  Hash crc16\n  Distribution modula\n  RefreshMethod fixed\n{groups}}}\n",
        dir.path().join("log").display()
    );
    let file = dir.path().join("predixy.conf");
    std::fs::write(&file, config)?;
    let mut command = peers::pinned(Some(SERVER_CORE), &found);
    let server = launch("predixy", dir, command.arg(&file), addr);
    Ok(Some(Proxy {
        name: "predixy",
        shards: shards.len(),
        addr,
        pid: server.process.pid(),
        _server: Running::Peer(server),
    }))
}

/// None where it can't be had.
pub(super) fn envoy(found: Option<&Path>, shards: &[SocketAddr]) -> Result<Option<Proxy>> {
    let Some(found) = found else {
        return Ok(None);
    };
    let addr = free_addr();
    let dir = directory(None);
    let endpoint = |at: &SocketAddr| {
        format!(
            "{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}",
            at.ip(),
            at.port()
        )
    };
    let endpoints: Vec<String> = shards.iter().map(endpoint).collect();
    let text = format!(
        "static_resources:\n  listeners:\n  - address:\n      socket_address: {{address: {}, port_value: {}}}\n    filter_chains:\n    - filters:\n\
         \x20     - name: redis\n        typed_config:\n          \"@type\": type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy\n\
         \x20         stat_prefix: r\n          settings: {{op_timeout: 5s}}\n          prefix_routes: {{catch_all_route: {{cluster: up}}}}\n\
         \x20 clusters:\n  - name: up\n    type: STATIC\n    lb_policy: MAGLEV\n    load_assignment:\n      cluster_name: up\n\
         \x20     endpoints: [{{lb_endpoints: [{}]}}]\n",
        addr.ip(),
        addr.port(),
        endpoints.join(", "),
    );
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, text)?;
    let mut command = peers::pinned(Some(SERVER_CORE), found);
    command
        .args(["--concurrency", "1", "--log-level", "error"])
        .arg("--disable-hot-restart")
        .arg("-c")
        .arg(file);
    let server = launch("envoy", dir, &mut command, addr);
    Ok(Some(Proxy {
        name: "envoy",
        shards: shards.len(),
        addr,
        pid: server.process.pid(),
        _server: Running::Peer(server),
    }))
}

/// The first line that a program prints, such as its version.
pub(super) fn first_line(name: &str, args: &[&str]) -> String {
    let Some(found) = program(name) else {
        return "not installed".to_owned();
    };
    let finished = run_command(name, Command::new(found).args(args));
    let text = [finished.out, finished.err].concat();
    text.lines()
        .find(|line| !line.is_empty())
        .unwrap_or("?")
        .to_owned()
}
