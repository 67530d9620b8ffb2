//! statsd: what applications send is counted here, and shown at scrapes by the names of statsd_exporter.
//!
//! ```text
//!   udp, tcp, unixgram ─▶ listen ─▶ line ─▶ table ──────────────▶ show ─▶ batch
//!                            ╰─▶ relay        │ a new name
//!                                             ╰─▶ name, mapping, families
//! ```
//!
//! A thread of its own takes the lines; a scrape locks the table for as long as it takes to copy it out.

mod alias;
mod cell;
mod counts;
mod distinct;
mod families;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod line;
mod lines;
mod listen;
mod mapping;
mod name;
mod quantiles;
mod relay;
mod show;
mod sockets;
mod staggered;
mod table;
#[cfg(test)]
mod tests;
mod window;

use std::cell::RefCell;
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use podkit_foundation::params::{Addr, ParamType as _, Size};

use super::{Ground, Planned, Spec};
use crate::metrics::batch::{Batch, Kind};
use crate::metrics::keeper::{Answered, Collected, Collector, Went};
use alias::MOST_SERIES;
use listen::{Thread, lock, start};
use mapping::Mapping;
use name::Dialects;
use relay::Relayed;
use sockets::{Places, bind, drops, inode};
use table::Table;

/// The keys that may follow `statsd://:9125`.
pub(crate) const KEYS: &[&str] = &[
    "proto",
    "unixgram",
    "mode",
    "mapping",
    "max-series",
    "ttl",
    "relay",
    "tags",
    "read-buffer",
];

/// Without `max-series`.
const MAX_SERIES: u32 = 100_000;
/// Without `read-buffer`: a second of 5,000 packets of 1,400 bytes, as the kernel counts them.
const READ_BUFFER: Size = Size(8 << 20);

/// What a source says.
#[derive(Debug, Clone, PartialEq)]
struct Options {
    places: Places,
    mapping: Option<PathBuf>,
    max_series: u32,
    ttl: u32,
    relay: Option<Addr>,
    dialects: Dialects,
}

pub(super) fn plan(spec: &Spec, ground: &Ground) -> Result<Vec<Planned>, String> {
    let options = options(spec)?;
    let statsd = Statsd::new(&options)?;
    let (places, relay) = (options.places, statsd.relay(options.relay));
    let (table, running) = (Arc::clone(&statsd.table), Rc::clone(&statsd.running));
    ground.on_start(move || {
        let sockets = bind(&places)?;
        running.replace(Some(Running {
            udp: sockets.udp.as_ref().and_then(inode),
            _thread: start(sockets, table, relay)?,
        }));
        Ok(())
    });
    if let Some(path) = options.mapping {
        let (ttl, table) = (options.ttl, Arc::clone(&statsd.table));
        ground.on_reload(move || reload(&path, ttl, &table));
    }
    Ok(vec![Planned::always(statsd)])
}

/// What it says of itself; what applications send is known to them.
pub(super) fn names() -> Vec<(String, Kind)> {
    let table = Table::new(Mapping::none(0), Dialects::ALL, 0, [0, 0]);
    let mut all = show::show(&table);
    put_drops(&mut all, 0);
    Relayed::new(String::new()).show(&mut all);
    let families = all.families().iter();
    families
        .map(|family| (family.name.to_string(), family.kind))
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "what is shown is a float")]
fn put_drops(batch: &mut Batch, drops: u64) {
    batch.counter(
        "statsd_exporter_udp_packet_drops_total",
        "The total number of dropped StatsD packets which received over UDP.",
        drops as f64,
    );
}

/// The table, with the mapping that there is.
fn table(options: &Options) -> Result<Table, String> {
    let mapping = match &options.mapping {
        None => Mapping::none(options.ttl),
        Some(path) => mapping::read(path, options.ttl)?,
    };
    let keys = [
        RandomState::new().hash_one(0),
        RandomState::new().hash_one(1),
    ];
    Ok(Table::new(
        mapping,
        options.dialects,
        options.max_series,
        keys,
    ))
}

fn reload(path: &Path, ttl: u32, table: &Mutex<Table>) -> Result<(), String> {
    let loaded = mapping::read(path, ttl);
    let mut table = lock(table);
    match loaded {
        Ok(mapping) => {
            table.remap(mapping);
            table.counts.loads += 1;
            Ok(())
        }
        Err(why) => {
            table.counts.failed_loads += 1;
            Err(why)
        }
    }
}

fn options(spec: &Spec) -> Result<Options, String> {
    if !spec.path.is_empty() {
        return Err(format!("\"{}\" follows the port; nothing can", spec.path));
    }
    let wrong = |key: &str, why: String| format!("{key}: {why}");
    let mut mode = 0o755;
    if let Some(text) = spec.option("mode") {
        let read = u32::from_str_radix(text, 8).ok();
        mode = read.filter(|mode| *mode <= 0o777).ok_or_else(|| {
            wrong(
                "mode",
                format!("\"{text}\" is not octal digits such as 0777"),
            )
        })?;
    }
    let mut unixgram = spec.file("unixgram");
    let (mut udp, mut tcp) = (Some(spec.addr.clone()), Some(spec.addr.clone()));
    if let Addr::Unix(path) = &spec.addr {
        if unixgram.is_some() || spec.option("proto").is_some() {
            return Err("a unix socket takes neither proto nor unixgram".to_owned());
        }
        unixgram = Some(path.clone());
        (udp, tcp) = (None, None);
    }
    if spec.option("mode").is_some() && unixgram.is_none() {
        return Err(wrong(
            "mode",
            "there is no unix socket that could have it".to_owned(),
        ));
    }
    if let Some(text) = spec.option("proto") {
        let words: Vec<&str> = text.split(',').collect();
        if let Some(word) = words.iter().find(|word| !["udp", "tcp"].contains(word)) {
            return Err(wrong("proto", format!("\"{word}\" is neither udp nor tcp")));
        }
        udp = udp.filter(|_| words.contains(&"udp"));
        tcp = tcp.filter(|_| words.contains(&"tcp"));
    }
    let read_buffer = match spec.option("read-buffer") {
        None => READ_BUFFER,
        Some(text) => Size::parse(text)
            .ok()
            .filter(|size| (1 << 12..=1 << 30).contains(&size.0))
            .ok_or_else(|| wrong("read-buffer", format!("\"{text}\" is not 4Ki to 1Gi")))?,
    };
    let max_series = match spec.option("max-series") {
        None => MAX_SERIES,
        Some(text) => text
            .parse()
            .ok()
            .filter(|count| (1..=MOST_SERIES).contains(count))
            .ok_or_else(|| {
                wrong(
                    "max-series",
                    format!("\"{text}\" is not 1 to {MOST_SERIES}"),
                )
            })?,
    };
    let ttl = match spec.option("ttl") {
        None => Duration::ZERO,
        Some(text) => Duration::parse(text)
            .map_err(|_| wrong("ttl", format!("\"{text}\" is not a time such as 10m")))?,
    };
    let relay = match spec.option("relay") {
        None => None,
        Some(text) => match Addr::parse(text) {
            Ok(Addr::Unix(_)) => return Err(wrong("relay", "expected HOST:PORT".to_owned())),
            Ok(addr) => Some(addr),
            Err(why) => return Err(wrong("relay", why)),
        },
    };
    let dialects = match spec.option("tags") {
        None => Dialects::ALL,
        Some(text) => Dialects::parse(text).map_err(|why| wrong("tags", why))?,
    };
    Ok(Options {
        places: Places {
            udp,
            tcp,
            unixgram: unixgram.map(|path| (path, mode)),
            read_buffer: usize::try_from(read_buffer.0).unwrap_or(usize::MAX),
        },
        mapping: spec.file("mapping"),
        max_series,
        ttl: u32::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(u32::MAX),
        relay,
        dialects,
    })
}

/// Asked at scrapes; dropped, nothing is listened to any more.
struct Statsd {
    table: Arc<Mutex<Table>>,
    running: Rc<RefCell<Option<Running>>>,
    relayed: Option<Arc<Relayed>>,
}

/// What listens.
struct Running {
    /// The socket's inode.
    udp: Option<u64>,
    _thread: Thread,
}

impl Statsd {
    fn new(options: &Options) -> Result<Self, String> {
        let relayed = options.relay.as_ref();
        Ok(Self {
            table: Arc::new(Mutex::new(table(options)?)),
            running: Rc::default(),
            relayed: relayed.map(|addr| Relayed::new(addr.to_string())),
        })
    }

    fn relay(&self, addr: Option<Addr>) -> Option<(Addr, Arc<Relayed>)> {
        addr.zip(self.relayed.clone())
    }

    fn show(&self) -> Batch {
        let mut batch = show::show(&lock(&self.table));
        let udp = self.running.borrow().as_ref().and_then(|on| on.udp);
        if let Some(drops) = udp.and_then(drops) {
            put_drops(&mut batch, drops);
        }
        if let Some(relayed) = &self.relayed {
            relayed.show(&mut batch);
        }
        batch
    }
}

impl Collector for Statsd {
    fn collect<'a>(&'a mut self, answered: &'a Answered) -> Collected<'a> {
        answered.yes();
        Box::pin(async { Ok(self.show()) })
    }

    fn status(&self, _: &Went) -> Batch {
        Batch::default()
    }
}
