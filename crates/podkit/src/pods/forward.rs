//! `podkit port-forward`: ports of this machine that lead to ports inside a pod, those of its loopback included.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches};
use podkit_foundation::error::Failure;
use podkit_foundation::params::{ParamError, ParamSet};
use podkit_pod::control::{Client, ClientError, Found, Kind, Part, Request};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::status::list;
use super::{Choice, PodCommand, living, many, one, pod_argument, runtime};
use crate::cli;

podkit_foundation::params! {
    /// What `port-forward` takes.
    pub(crate) struct ForwardParams {
        /// Addresses to listen on: localhost (127.0.0.1 and ::1) or IP addresses.
        address: Vec<String> { default: Some("localhost") },
        /// The pod's namespace.
        namespace: String { default: Some("default"), short: Some('n') },
        /// Where the state of pods is, if not in /run/podkit and /var/lib/podkit.
        state_dir: Option<PathBuf> {},
    }
}

pub(super) const COMMAND: PodCommand = PodCommand {
    name: "port-forward",
    about: "Lead ports of this machine to ports inside a pod",
    usage: "port-forward POD [LOCAL:]REMOTE...",
    help: "\
LOCAL is REMOTE when it is left out, and a free port when it is empty (:80) or 0; REMOTE is a number or the name of a container's port. \
Goes on until it is interrupted, or the pod ends.",
    params: ForwardParams::PARAMS,
    args: |command| {
        pod_argument(command).arg(
            Arg::new("ports")
                .value_name("[LOCAL:]REMOTE")
                .num_args(1..)
                .required(true)
                .help("Ports to lead in"),
        )
    },
    run,
};

fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let params = ForwardParams::from_values(&cli::values(ForwardParams::PARAMS, matches))?;
    let choice = Choice {
        state_dir: params.state_dir.as_ref(),
        namespace: &params.namespace,
        all_namespaces: false,
        selector: None,
        names: Vec::new(),
    };
    let mut addresses = Vec::new();
    for address in &params.address {
        match address.as_str() {
            // One of the two may not be there.
            "localhost" => addresses.extend([
                (IpAddr::V4(Ipv4Addr::LOCALHOST), true),
                (IpAddr::V6(Ipv6Addr::LOCALHOST), true),
            ]),
            address => {
                let why = || format!("\"{address}\" is not localhost and not an IP address");
                let address = address.parse();
                addresses.push((
                    address.map_err(|_| ParamError::new("address", why()))?,
                    false,
                ));
            }
        }
    }
    let found = living(&choice, &one(matches, "pod"))?;
    let ports = many(matches, "ports");
    let ports: Result<Vec<_>, Failure> = ports.iter().map(|text| pair(&found, text)).collect();
    runtime()?.block_on(forward(&found, &addresses, &ports?))
}

/// `LOCAL:REMOTE`; 0 is any local port.
fn pair(found: &Found, text: &str) -> Result<(u16, u16), Failure> {
    let wrong = |what: &str| Failure::Usage(format!("\"{text}\": {what}"));
    let (local, remote) = text.split_once(':').unwrap_or((text, text));
    let remote = match remote.parse::<u16>() {
        Ok(0) => return Err(wrong("the remote port must be from 1 to 65535")),
        Ok(port) => port,
        Err(_) => named(&found.pod, remote).ok_or_else(|| {
            wrong("expected [LOCAL:]REMOTE, with port numbers or the name of a container's port")
        })?,
    };
    let local = match local {
        "" => 0,
        _ if !text.contains(':') => remote,
        local => local
            .parse()
            .map_err(|_| wrong("the local port must be a number"))?,
    };
    Ok((local, remote))
}

fn named(pod: &Value, name: &str) -> Option<u16> {
    let containers = list(&pod["spec"]["containers"])
        .iter()
        .chain(list(&pod["spec"]["initContainers"]));
    let mut ports = containers.flat_map(|one| list(&one["ports"]));
    let port = ports.find(|port| port["name"] == name)?;
    u16::try_from(port["containerPort"].as_u64()?).ok()
}

async fn forward(
    found: &Found,
    addresses: &[(IpAddr, bool)],
    ports: &[(u16, u16)],
) -> Result<ExitCode, Failure> {
    let (mut pods, _client) = {
        let watch = Client::ask(&found.run, &Request::Pod { watch: true }).await;
        let (client, reply) = watch.map_err(super::failed(&found.name))?;
        (reply, client)
    };
    for (local, remote) in ports {
        let mut local = *local;
        let mut listening = false;
        for (address, optional) in addresses {
            match TcpListener::bind(SocketAddr::new(*address, local)).await {
                Ok(listener) => {
                    listening = true;
                    let bound = listener.local_addr();
                    let bound = bound.map_err(|e| Failure::runtime("listening", e))?;
                    // The same for the other address.
                    local = bound.port();
                    cli::print(&format!("Forwarding from {bound} -> {remote}\n"))?;
                    tokio::spawn(accept(listener, found.clone(), *remote));
                }
                Err(_) if *optional && (listening || address.is_ipv4()) => {}
                Err(error) => {
                    let what = format!("listening on {}", SocketAddr::new(*address, local));
                    return Err(Failure::runtime(what, error));
                }
            }
        }
        if !listening {
            let taken = std::io::Error::from(std::io::ErrorKind::AddrInUse);
            return Err(Failure::runtime(
                format!("listening on port {local}"),
                taken,
            ));
        }
    }
    // The end of the pod is the end of this.
    while let Ok(Some(_)) = pods.object().await {}
    Err(Failure::Runtime(format!(
        "lost connection to pod: {} has ended",
        found.name
    )))
}

async fn accept(listener: TcpListener, found: Found, remote: u16) {
    while let Ok((stream, _)) = listener.accept().await {
        let local = listener.local_addr().map_or(0, |local| local.port());
        if !super::ps::shows(&format!("Handling connection for {local}\n")) {
            return;
        }
        let found = found.clone();
        tokio::spawn(async move {
            if let Err(error) = carry(stream, &found, remote).await {
                eprintln!("podkit: forwarding {local} -> {remote}: {error}");
            }
        });
    }
}

/// One connection.
async fn carry(stream: TcpStream, found: &Found, remote: u16) -> Result<(), ClientError> {
    let (mut client, mut reply) =
        Client::ask(&found.run, &Request::Forward { port: remote }).await?;
    let (mut from, mut to) = stream.into_split();
    let inward = async {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let count = from.read(&mut buffer).await.unwrap_or(0);
            client.input(&buffer[..count]).await?;
            if count == 0 {
                return Ok::<(), ClientError>(());
            }
        }
    };
    let outward = async {
        loop {
            match reply.next().await? {
                Part::Frame(frame) if frame.kind == Kind::Output => {
                    if frame.bytes.is_empty() {
                        // Whoever has gone is not told.
                        let _closed = to.shutdown().await;
                        return Ok::<(), ClientError>(());
                    }
                    to.write_all(&frame.bytes).await?;
                }
                Part::Frame(_) => {}
                Part::Ended(_) => return Ok(()),
            }
        }
    };
    let (inward, outward) = tokio::join!(inward, outward);
    match (inward, outward) {
        // Either side may close first.
        (_, Err(ClientError::Gone)) => Ok(()),
        (_, Err(error)) => Err(error),
        _ => Ok(()),
    }
}
