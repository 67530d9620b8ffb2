//! The servers that are compared, each told to do the same in its own words.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use podkit_testkit::net::free_addr;
use podkit_testkit::peers::{Server, directory, launch, pinned};
use podkit_testkit::program;

use super::Ground;
use crate::bench::SERVER_CORE;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Podkit,
    Nginx,
    Haproxy,
    Envoy,
    Caddy,
}

impl Who {
    /// In the order of the tables.
    pub(super) const ALL: [Self; 5] = [
        Self::Podkit,
        Self::Nginx,
        Self::Haproxy,
        Self::Envoy,
        Self::Caddy,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Podkit => "podkit",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Caddy => "caddy",
        }
    }
}

/// What clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Front {
    Http,
    Https,
    /// HTTP/2 in the clear, by prior knowledge.
    H2c,
}

/// How the upstream is reached; HTTP/1.1 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Tcp,
    Unix,
}

/// What a server is to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Task {
    pub(super) front: Front,
    pub(super) way: Way,
    /// Count requests by client address against a rate that is never reached.
    pub(super) limit: bool,
    /// Client connections that it must take.
    pub(super) connections: usize,
}

/// One that runs.
pub(super) struct Running {
    pub(super) who: Who,
    pub(super) addr: SocketAddr,
    pub(super) server: Server,
}

impl Running {
    /// The process to look at, with all below it.
    pub(super) fn pid(&self) -> u32 {
        self.server.process.pid()
    }
}

/// A rate that no load here reaches, per second.
const RATE: u64 = 1_000_000;

/// Starts it; None when it can't do that, or isn't there.
pub(super) fn start(who: Who, ground: &Ground, task: Task) -> Result<Option<Running>> {
    let addr = free_addr();
    let dir = directory(Some(&ground.pair));
    let path = dir.path().to_path_buf();
    let mut command = match who {
        Who::Podkit => podkit(ground, task, addr, &path),
        Who::Nginx => nginx(ground, task, addr, &path)?,
        Who::Haproxy => haproxy(ground, task, addr, &path)?,
        Who::Envoy => match &ground.envoy {
            Some(program) => envoy(program, ground, task, addr, &path)?,
            None => return Ok(None),
        },
        // Its rate limits are a module that Debian does not have.
        Who::Caddy if task.limit => return Ok(None),
        Who::Caddy => caddy(ground, task, addr, &path)?,
    };
    let server = launch(who.name(), dir, &mut command, addr);
    Ok(Some(Running { who, addr, server }))
}

fn found(name: &str) -> Result<std::path::PathBuf> {
    program(name).with_context(|| format!("{name} is not installed"))
}

fn config(dir: &Path, text: &str) -> Result<std::path::PathBuf> {
    let path = dir.join("config");
    std::fs::write(&path, text)?;
    Ok(path)
}

fn podkit(ground: &Ground, task: Task, addr: SocketAddr, dir: &Path) -> Command {
    let mut command = pinned(Some(SERVER_CORE), &ground.podkit);
    command.arg(if task.limit { "limit" } else { "balance" });
    command.args(["--workers", "1", "--log-level", "warn"]);
    command.args(["--listen", &addr.to_string()]);
    command.args(["--admin", &free_addr().to_string()]);
    command.args(["--max-connections", &task.connections.to_string()]);
    let upstream = match task.way {
        Way::Tcp => ground.tcp.to_string(),
        Way::Unix => format!("unix:{}", ground.unix.display()),
    };
    command.args(["--upstream", &upstream]);
    if task.front == Front::Https {
        command.arg("--cert").arg(dir.join("server.crt"));
        command.arg("--key").arg(dir.join("server.key"));
    }
    if task.limit {
        command.args([
            "--rule",
            &format!("name=all key=ip rate={RATE}/s burst={RATE}"),
        ]);
    }
    command
}

fn nginx(ground: &Ground, task: Task, addr: SocketAddr, dir: &Path) -> Result<Command> {
    let path = dir.display();
    let target = match task.way {
        Way::Tcp => ground.tcp.to_string(),
        Way::Unix => format!("unix:{}", ground.unix.display()),
    };
    let listen = match task.front {
        Front::Http => format!("listen {addr};"),
        Front::H2c => format!("listen {addr} http2;"),
        Front::Https => format!(
            "listen {addr} ssl; ssl_certificate {path}/server.crt; ssl_certificate_key {path}/server.key;\n\
             ssl_protocols TLSv1.2 TLSv1.3; ssl_ecdh_curve X25519:prime256v1;"
        ),
    };
    let scheme = if task.front == Front::Https {
        "https"
    } else {
        "http"
    };
    let (zone, limit) = match task.limit {
        // The highest rate that it takes; the burst bears the rest.
        true => (
            "limit_req_zone $binary_remote_addr zone=all:10m rate=1000000r/s;",
            "limit_req zone=all burst=1000000 nodelay;",
        ),
        false => ("", ""),
    };
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let text = format!(
        "{user} daemon off; worker_processes 1; pid {path}/pid; error_log stderr warn; worker_rlimit_nofile 20000;\n\
         events {{ worker_connections {}; }}\n\
         http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 300s; {zone}\n\
         client_body_temp_path {path}/body; proxy_temp_path {path}/proxy; fastcgi_temp_path {path}/fastcgi;\n\
         uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;\n\
         upstream up {{ server {target}; keepalive 128; keepalive_requests 100000000; }}\n\
         server {{ {listen} location / {{ {limit} proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_max_temp_file_size 0; proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
         proxy_set_header X-Forwarded-Proto {scheme}; proxy_set_header X-Forwarded-Host $host; }} }} }}\n",
        task.connections + 256,
    );
    let mut command = pinned(Some(SERVER_CORE), &found("nginx")?);
    command
        .arg("-p")
        .arg(dir)
        .args(["-e", "stderr", "-c"])
        .arg(config(dir, &text)?);
    Ok(command)
}

fn haproxy(ground: &Ground, task: Task, addr: SocketAddr, dir: &Path) -> Result<Command> {
    let target = match task.way {
        Way::Tcp => ground.tcp.to_string(),
        Way::Unix => format!("unix@{}", ground.unix.display()),
    };
    let (bind, scheme) = match task.front {
        Front::Http => (format!("bind {addr}"), "http"),
        Front::H2c => (format!("bind {addr} proto h2"), "http"),
        Front::Https => (
            format!(
                "bind {addr} ssl crt {}/server.pem curves X25519:P-256 ssl-min-ver TLSv1.2",
                dir.display()
            ),
            "https",
        ),
    };
    let limit = match task.limit {
        true => format!(
            "  stick-table type ip size 1m expire 1m store http_req_rate(1s)\n\
             \x20 http-request track-sc0 src\n\
             \x20 http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {RATE} }}\n"
        ),
        false => String::new(),
    };
    let text = format!(
        "global\n  nbthread 1\n  maxconn {}\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 300s\n  timeout server 300s\n  timeout http-keep-alive 300s\n\
         \x20 http-reuse always\n  option forwardfor\n\
         frontend f\n  {bind}\n{limit}\
         \x20 http-request set-header X-Forwarded-Proto {scheme}\n\
         \x20 http-request set-header X-Forwarded-Host %[req.hdr(host)]\n\
         \x20 default_backend b\n\
         backend b\n  server s {target} pool-max-conn 128\n",
        // Two descriptors each, and the limit on files is often 20,000.
        task.connections.min(9_700),
    );
    let mut command = pinned(Some(SERVER_CORE), &found("haproxy")?);
    command.arg("-f").arg(config(dir, &text)?);
    Ok(command)
}

fn envoy(
    program: &Path,
    ground: &Ground,
    task: Task,
    addr: SocketAddr,
    dir: &Path,
) -> Result<Command> {
    let target = match task.way {
        Way::Tcp => format!(
            "socket_address: {{address: {}, port_value: {}}}",
            ground.tcp.ip(),
            ground.tcp.port()
        ),
        Way::Unix => format!("pipe: {{path: {}}}", ground.unix.display()),
    };
    let mut filters = String::new();
    if task.limit {
        write!(
            filters,
            "          - name: limit\n            typed_config:\n              \"@type\": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit\n\
             \x20             stat_prefix: limit\n              token_bucket: {{max_tokens: {RATE}, tokens_per_fill: {RATE}, fill_interval: 1s}}\n\
             \x20             filter_enabled: {{default_value: {{numerator: 100}}}}\n              filter_enforced: {{default_value: {{numerator: 100}}}}\n"
        )?;
    }
    let codec = match task.front {
        Front::H2c => "HTTP2",
        _ => "HTTP1",
    };
    let socket = match task.front {
        Front::Https => format!(
            "      transport_socket:\n        name: tls\n        typed_config:\n          \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext\n\
             \x20         common_tls_context:\n            tls_params: {{ecdh_curves: [X25519, P-256]}}\n            tls_certificates:\n\
             \x20           - certificate_chain: {{filename: {0}/server.crt}}\n              private_key: {{filename: {0}/server.key}}\n",
            dir.display()
        ),
        _ => String::new(),
    };
    let text = format!(
        "static_resources:\n  listeners:\n  - address:\n      socket_address: {{address: {}, port_value: {}}}\n    filter_chains:\n    - filters:\n\
         \x20     - name: http\n        typed_config:\n          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n\
         \x20         stat_prefix: f\n          codec_type: {codec}\n          use_remote_address: true\n          route_config:\n            virtual_hosts:\n\
         \x20           - name: all\n              domains: [\"*\"]\n              routes: [{{match: {{prefix: /}}, route: {{cluster: up}}}}]\n\
         \x20         http_filters:\n{filters}          - name: router\n            typed_config:\n              \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router\n\
         {socket}\
         \x20 clusters:\n  - name: up\n    type: STATIC\n    circuit_breakers: {{thresholds: [{{max_connections: 20000, max_requests: 20000}}]}}\n    load_assignment:\n      cluster_name: up\n\
         \x20     endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{{target}}}}}}}]}}]\n",
        addr.ip(),
        addr.port(),
    );
    let file = dir.join("config.yaml");
    std::fs::write(&file, text)?;
    let mut command = pinned(Some(SERVER_CORE), program);
    command.args([
        "--concurrency",
        "1",
        "--log-level",
        "error",
        "--disable-hot-restart",
    ]);
    command.arg("-c").arg(file);
    Ok(command)
}

fn caddy(ground: &Ground, task: Task, addr: SocketAddr, dir: &Path) -> Result<Command> {
    let target = match task.way {
        Way::Tcp => ground.tcp.to_string(),
        Way::Unix => format!("unix/{}", ground.unix.display()),
    };
    let (scheme, tls) = match task.front {
        Front::Https => (
            "https",
            format!("  tls {0}/server.crt {0}/server.key\n", dir.display()),
        ),
        _ => ("http", String::new()),
    };
    let text = format!(
        "{{\n  admin off\n  auto_https off\n  log {{\n    level ERROR\n  }}\n  default_sni {}\n  servers {{\n    protocols h1 h2 h2c\n  }}\n}}\n\
         {scheme}://:{} {{\n  bind {}\n{tls}  reverse_proxy {target} {{\n    transport http {{\n      keepalive_idle_conns_per_host 128\n    }}\n  }}\n}}\n",
        super::NAME,
        addr.port(),
        addr.ip(),
    );
    let mut command = pinned(Some(SERVER_CORE), &found("caddy")?);
    // One core; it keeps its state where the rest of it is.
    command
        .env("GOMAXPROCS", "1")
        .env("HOME", dir)
        .env("XDG_DATA_HOME", dir)
        .env("XDG_CONFIG_HOME", dir);
    command
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(config(dir, &text)?);
    Ok(command)
}
