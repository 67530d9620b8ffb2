//! Memory of kept-alive connections on which nothing happens: each has asked once.

use std::io::{Read, Write};
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use podkit_testkit::http;
use podkit_testkit::machine::{rss_kib, tree};
use podkit_testkit::tls::{Client, Options};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::servers::{Front, Task, Way, Who, start};
use super::{Ground, NAME};
use crate::bench::Effort;

/// Memory per idle connection.
pub(super) struct Idle {
    pub(super) who: Who,
    pub(super) front: Front,
    pub(super) connections: usize,
    pub(super) bytes_each: f64,
}

/// HAProxy takes no more here: two descriptors each, of 20,000.
const MOST_HAPROXY: usize = 9_600;

pub(super) fn measure(ground: &Ground, effort: Effort) -> Result<Vec<Idle>> {
    raise_descriptor_limit();
    let wanted = if effort.quick { 500 } else { 10_000 };
    let mut all = Vec::new();
    for front in [Front::Http, Front::Https] {
        for who in Who::ALL {
            let connections = if who == Who::Haproxy {
                wanted.min(MOST_HAPROXY)
            } else {
                wanted
            };
            let task = Task {
                front,
                way: Way::Tcp,
                limit: false,
                connections: connections + 100,
            };
            let Some(running) = start(who, ground, task)? else {
                continue;
            };
            eprintln!("{connections} idle connections: {}", who.name());
            let memory = || -> u64 { tree(running.pid()).into_iter().map(rss_kib).sum() };
            // What the first ones touch is there for all.
            let first = open(running.addr, front, 50)?;
            let before = memory();
            let held = open(running.addr, front, connections)?;
            let grown = memory().saturating_sub(before) * 1024;
            drop((first, held));
            #[expect(clippy::cast_precision_loss, reason = "bytes of one process")]
            let bytes_each = grown as f64 / connections as f64;
            all.push(Idle {
                who,
                front,
                connections,
                bytes_each,
            });
        }
    }
    Ok(all)
}

trait Both: Read + Write {}
impl<T: Read + Write> Both for T {}

/// Connections that have asked once and were answered.
fn open(addr: SocketAddr, front: Front, count: usize) -> Result<Vec<Box<dyn Both>>> {
    let client = Client::new(&Options {
        x25519_only: true,
        ..Options::default()
    });
    let request = format!("GET /small HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    (0..count)
        .map(|at| {
            let mut stream: Box<dyn Both> = match front {
                Front::Https => Box::new(client.connect(addr, NAME)?),
                _ => Box::new(http::dial(addr)?),
            };
            let answer = http::exchange(&mut stream, request.as_bytes());
            let answer = answer.with_context(|| format!("connection {at} of {count}"))?;
            if answer.status != 200 {
                bail!("connection {at} of {count}: {}", answer.status);
            }
            Ok(stream)
        })
        .collect()
}

fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        eprintln!("xtask: the limit on open files: {error}");
    }
}
