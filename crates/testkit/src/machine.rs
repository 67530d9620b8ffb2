//! What the kernel says about a process, and what the machine is.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// User and system time of a process, all its threads, ended ones too (proc(5), `/proc/PID/stat` fields 14 and 15).
/// Ticks of 10 ms: measure over seconds.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = read(pid, "stat");
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = after_name
        .split_ascii_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().expect("utime and stime are numbers"))
        .sum();
    Duration::from_millis(ticks * 10)
}

/// The time on a core of a process's living threads, in ns (`/proc/PID/task/TID/schedstat`, the first field).
pub fn cpu_nanos(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let of = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let first = text.split_whitespace().next().unwrap_or("0");
        first.parse::<u64>().expect("a number")
    };
    tasks.flatten().map(of).sum()
}

/// The same for a process and all below it that live: a server with a master and workers.
pub fn cpu_time_tree(pid: u32) -> Duration {
    tree(pid).into_iter().map(cpu_time).sum()
}

/// A process and its living descendants, the process first.
pub fn tree(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while next < all.len() {
        let of = all[next];
        next += 1;
        let tasks = fs::read_dir(format!("/proc/{of}/task"))
            .into_iter()
            .flatten();
        for task in tasks.flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
    }
    all
}

/// Resident memory in KiB (`VmRSS`), shared pages counted in full.
pub fn rss_kib(pid: u32) -> u64 {
    field_kib(&read(pid, "status"), "VmRSS:")
}

/// The same of several, without those that have ended meanwhile.
pub fn rss_kib_of_all(pids: &[u32]) -> u64 {
    let sizes = pids.iter().filter_map(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    sizes.sum()
}

/// Memory in KiB of a process's own and its share of what it shares (`Pss` of smaps_rollup).
pub fn pss_kib(pid: u32) -> u64 {
    field_kib(&read(pid, "smaps_rollup"), "Pss:")
}

/// Open descriptors of a process.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Threads of a process.
pub fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// Whether a process is there and has not ended: a zombie does not live.
pub fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The program a process runs.
pub fn executable(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// The command line of a process, its arguments joined by blanks; empty for kernel threads and zombies.
pub fn command(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = bytes
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(String::from_utf8_lossy)
        .collect();
    words.join(" ")
}

/// Every process there is.
pub fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// One line a fact: processor, cores, memory, kernel, distribution.
pub fn facts() -> Vec<(String, String)> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_once([':', '=']))
            .map_or("?".to_owned(), |(_, value)| {
                value.trim().trim_matches('"').to_owned()
            })
    };
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let memory = field_kib(
        &fs::read_to_string("/proc/meminfo").unwrap_or_default(),
        "MemTotal:",
    );
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    vec![
        ("processor".into(), value(&cpuinfo, "model name")),
        ("cores".into(), cores.to_string()),
        ("memory".into(), format!("{} MiB", memory / 1024)),
        ("kernel".into(), kernel.trim().to_owned()),
        ("distribution".into(), value(&release, "PRETTY_NAME")),
    ]
}

fn read(pid: u32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}"))
        .unwrap_or_else(|error| panic!("/proc/{pid}/{file}: {error}"))
}

fn field_kib(text: &str, key: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or_else(|| panic!("no {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let me = std::process::id();
        assert!(rss_kib_of_all(&[me, u32::MAX]) > 100);
        assert!(rss_kib(me) > 100 && pss_kib(me) <= rss_kib(me));
        assert!(descriptors(me) >= 3 && threads(me) >= 2);
        assert!(processes().contains(&me) && tree(me).contains(&me));
        assert!(command(me).contains("testkit"));
        // Spins until it shows, however busy the machine is.
        let before = cpu_time(me);
        crate::until("CPU time", || {
            let spin = std::time::Instant::now();
            while spin.elapsed() < Duration::from_millis(20) {}
            (cpu_time(me) >= before + Duration::from_millis(20)).then_some(())
        });
        assert!(facts().iter().all(|(_, value)| value != "?"));
    }
}
