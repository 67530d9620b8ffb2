//! The processes as a table of text, for `curl`.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use super::snapshot::{Process, Snapshot};

/// The table: what is summed up in a few lines, then a row for each process.
pub(crate) fn table(snapshot: &Snapshot<'_>) -> String {
    let mut out = String::with_capacity(256 + snapshot.processes.len() * 120);
    let ago = if snapshot.latest {
        String::new()
    } else {
        format!(", {:.0} s ago", snapshot.age_seconds)
    };
    let pod = if snapshot.pod.is_empty() {
        String::new()
    } else {
        format!("{}: ", snapshot.pod)
    };
    line(
        &mut out,
        format_args!(
            "{pod}{} processes, {} threads, CPU {}, memory {} at {}{ago}",
            snapshot.total,
            snapshot.threads,
            percent(snapshot.cpu_percent),
            size(snapshot.memory_bytes),
            utc(snapshot.at),
        ),
    );
    if let Some(count @ 1..) = snapshot.short_lived {
        let span = snapshot.elapsed_seconds;
        line(
            &mut out,
            format_args!("{count} processes or threads came and went in the {span:.1} s before"),
        );
    }
    if snapshot.skipped > 0 {
        line(
            &mut out,
            format_args!(
                "{} more are not watched (--max-processes)",
                snapshot.skipped
            ),
        );
    }
    if snapshot.alone {
        line(&mut out, format_args!("{ALONE}"));
    }
    out.push('\n');
    let width = |name: fn(&Process<'_>) -> usize, least: usize, most: usize| {
        snapshot
            .processes
            .iter()
            .map(name)
            .max()
            .unwrap_or(0)
            .clamp(least, most)
    };
    let container = width(|row| row.container.chars().count(), 9, 24);
    let user = width(|row| row.user.chars().count(), 4, 16);
    line(
        &mut out,
        format_args!(
            "{:container$} {:>7} {:>7} {:user$} S {:>6} {:>6} {:>8} {:>4} {:>9} {:>9} COMMAND",
            "CONTAINER", "PID", "PPID", "USER", "CPU%", "SHORT%", "MEMORY", "THR", "TIME", "AGE",
        ),
    );
    for row in &snapshot.processes {
        let short = match row.short_lived_cpu_percent {
            Some(share) if share > 0.0 => format!("{share:.1}"),
            _ => String::new(),
        };
        line(
            &mut out,
            format_args!(
                "{:container$} {:>7} {:>7} {:user$} {} {:>6} {short:>6} {:>8} {:>4} {:>9} {:>9} {}",
                fit(row.container, container),
                row.pid,
                row.ppid,
                fit(row.user, user),
                row.state,
                percent(row.cpu_percent),
                size(row.memory_bytes),
                row.threads,
                span(row.cpu_seconds),
                span((snapshot.at - row.started).max(0.0)),
                row.command,
            ),
        );
    }
    out
}

/// Said when topz sees only itself.
pub(crate) const ALONE: &str =
    "topz sees only itself: set shareProcessNamespace: true in the pod to see the others";

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a String can't fail");
    out.push('\n');
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}

/// Bytes in the unit that leaves three digits or four.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["Ki", "Mi", "Gi", "Ti", "Pi"];
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(value < 99.95 && unit > 0);
    format!("{value:.digits$}{}", UNITS[unit])
}

/// Seconds as `4.2s`, `3m07s`, `5h12m`, `9d03h`.
fn span(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1}s"),
        60..3_600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3_600..86_400 => format!("{}h{:02}m", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// Unix seconds as RFC 3339 in UTC.
pub(crate) fn utc(at: f64) -> String {
    let since = Duration::try_from_secs_f64(at).unwrap_or_default();
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}
