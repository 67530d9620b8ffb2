//! The process metrics of the contract, from `/proc/self` (proc(5)); names as Prometheus' client libraries have them.

use podkit_foundation::telemetry::metrics::{Encoder, Kind};
use std::fs;

/// Clock ticks a second in `/proc/PID/stat`: USER_HZ, 100 on every Linux that podkit runs on.
const TICKS: f64 = 100.0;
const PAGE: f64 = 4096.0;

/// Adds the process families; what can't be read is left out.
pub(crate) fn collect(encoder: &mut Encoder) {
    let mut put = |name: &str, kind: Kind, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            encoder.family(name, kind, help);
            encoder.sample(name, &[], value);
        }
    };
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let stat = Stat::parse(&stat);
    let field = |value: fn(&Stat) -> f64| stat.as_ref().map(value);
    put(
        "process_cpu_seconds_total",
        Kind::Counter,
        "User and system CPU time.",
        field(|stat| stat.cpu_ticks / TICKS),
    );
    put(
        "process_resident_memory_bytes",
        Kind::Gauge,
        "Resident memory.",
        field(|stat| stat.resident_pages * PAGE),
    );
    put(
        "process_virtual_memory_bytes",
        Kind::Gauge,
        "Virtual memory.",
        field(|stat| stat.virtual_bytes),
    );
    put(
        "process_threads",
        Kind::Gauge,
        "Threads.",
        field(|stat| stat.threads),
    );
    put(
        "process_open_fds",
        Kind::Gauge,
        "Open file descriptors.",
        open_fds(),
    );
    put(
        "process_max_fds",
        Kind::Gauge,
        "The limit of open file descriptors.",
        max_fds(),
    );
    let start = stat
        .as_ref()
        .and_then(|stat| Some(boot_time()? + stat.start_ticks / TICKS));
    put(
        "process_start_time_seconds",
        Kind::Gauge,
        "Unix time of the start.",
        start,
    );
}

/// The fields of `/proc/self/stat` that are shown.
struct Stat {
    cpu_ticks: f64,
    threads: f64,
    start_ticks: f64,
    virtual_bytes: f64,
    resident_pages: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the name in parentheses and may hold anything: count from its end.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        // proc_pid_stat(5) counts from 1; the state, its third field, is the first here.
        let at = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_ticks: at(14)? + at(15)?,
            threads: at(20)?,
            start_ticks: at(22)?,
            virtual_bytes: at(23)?,
            resident_pages: at(24)?,
        })
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a count of descriptors is small"
)]
fn open_fds() -> Option<f64> {
    // The directory's own descriptor is open while it is read.
    Some(
        fs::read_dir("/proc/self/fd")
            .ok()?
            .count()
            .saturating_sub(1) as f64,
    )
}

fn max_fds() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use podkit_foundation::telemetry::metrics::{Format, Registry};

    #[test]
    fn a_name_with_parentheses_and_spaces_moves_nothing() {
        let text =
            "7 (a) b) c) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 5 0 1000 409600 25 18446744";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(
            (stat.cpu_ticks, stat.threads, stat.start_ticks),
            (42.0, 5.0, 1000.0)
        );
        assert_eq!((stat.virtual_bytes, stat.resident_pages), (409_600.0, 25.0));
    }

    #[test]
    fn this_process_is_measured() {
        let registry = Registry::default();
        registry.collect(collect);
        let text = registry.encode(Format::Prometheus);
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name} is not in\n{text}"))
                .trim()
                .parse()
                .unwrap()
        };
        assert!(value("process_resident_memory_bytes ") > 100_000.0);
        assert!(value("process_open_fds ") >= 3.0 && value("process_threads ") >= 1.0);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let age = now.as_secs_f64() - value("process_start_time_seconds ");
        assert!((-2.0..3_600.0).contains(&age), "started {age} s ago");
    }
}
