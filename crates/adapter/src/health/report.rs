//! What is shown of the board: answers of the endpoints, `/why`, metrics, the page.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use podkit_dataplane::module::Section;
use podkit_foundation::surface::Metric;
use podkit_foundation::telemetry::metrics::{Encoder, Kind};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::board::{Board, Endpoint, Entry, Verdict};
use super::check::{Kept, State};

/// What is told of probes, for the surface.
pub(crate) const METRICS: &[Metric] = &[
    Metric {
        name: "probe_success",
        kind: "gauge",
        labels: &["probe"],
        doc: "Whether the last try of a probe succeeded.",
    },
    Metric {
        name: "probe_duration_seconds",
        kind: "gauge",
        labels: &["probe"],
        doc: "How long the last try of a probe took.",
    },
    Metric {
        name: "probe_phase_duration_seconds",
        kind: "gauge",
        labels: &["probe", "phase"],
        doc: "The same by phase: dns, connect, tls, auth, query; those that there were.",
    },
    Metric {
        name: "podkit_health_state",
        kind: "gauge",
        labels: &["probe", "state"],
        doc: "1 for the state of a probe: unknown, healthy, degraded or unhealthy.",
    },
    Metric {
        name: "podkit_health_age_seconds",
        kind: "gauge",
        labels: &["probe"],
        doc: "How old the last result of a probe is.",
    },
    Metric {
        name: "podkit_health_latency_seconds",
        kind: "gauge",
        labels: &["probe", "quantile"],
        doc: "Latency of a probe over its window.",
    },
    Metric {
        name: "podkit_health_results_total",
        kind: "counter",
        labels: &["probe", "result"],
        doc: "Tries of a probe: success; failure.",
    },
    Metric {
        name: "podkit_health_passes",
        kind: "gauge",
        labels: &["endpoint"],
        doc: "1 when livez, readyz or startupz is answered with 200.",
    },
];

/// As Kubernetes' own components answer: `ok`, or the checks with `[+]` and `[-]`.
pub(crate) fn text(endpoint: &str, verdict: &Verdict, verbose: bool) -> String {
    if verdict.passes && !verbose {
        return "ok".to_owned();
    }
    let mut text = String::new();
    for line in &verdict.lines {
        let mut note = match (line.passes, line.why.as_str()) {
            (true, "") => format!("[+]{} ok", line.name),
            (true, why) => format!("[+]{} ok: {}: {why}", line.name, line.state.word()),
            (false, why) => format!("[-]{} failed: {why}", line.name),
        };
        if let Some(age) = line.age.filter(|_| verbose) {
            put(&mut note, format_args!(" ({:.1} s ago)", age.as_secs_f64()));
        }
        note.push('\n');
        text.push_str(&note);
    }
    if let Some(since) = verdict.drained {
        let line = format_args!(
            "[-]drain failed: drained by hand since {} s\n",
            since.as_secs()
        );
        put(&mut text, line);
    }
    if verdict.stopping {
        text.push_str("[-]lifecycle failed: stopping\n");
    }
    let word = if verdict.passes { "passed" } else { "failed" };
    put(&mut text, format_args!("{endpoint} check {word}\n"));
    text
}

fn put(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more)
        .expect("writing to a String can't fail");
}

/// The same as JSON.
pub(crate) fn tree(endpoint: &str, verdict: &Verdict) -> Value {
    let checks: Vec<Value> = verdict
        .lines
        .iter()
        .map(|line| {
            json!({
                "name": line.name,
                "passes": line.passes,
                "state": line.state.word(),
                "why": line.why,
                "age_seconds": line.age.map(|age| age.as_secs_f64()),
            })
        })
        .collect();
    json!({
        "endpoint": endpoint,
        "passes": verdict.passes,
        "state": verdict.state.word(),
        "age_seconds": verdict.age.as_secs_f64(),
        "drained_seconds": verdict.drained.map(|since| since.as_secs_f64()),
        "stopping": verdict.stopping,
        "checks": checks,
    })
}

/// Of each probe (or of one) the state and the last results, the newest first.
pub(crate) fn why_tree(board: &Board, only: Option<&str>, now: Instant) -> Value {
    let those = board
        .entries()
        .filter(|(name, _)| only.is_none_or(|only| only == *name));
    let probes: Vec<Value> = those
        .map(|(name, entry)| {
            let (state, why) = entry.check.state(now);
            let results: Vec<Value> = entry.check.kept().map(|kept| result(kept, now)).collect();
            let latency: serde_json::Map<String, Value> = entry
                .check
                .latencies()
                .quantiles()
                .into_iter()
                .map(|(of, found, _)| (format!("p{of}_ms"), json!(millis(found))))
                .collect();
            json!({
                "probe": name,
                "asks": entry.shown,
                "state": state.word(),
                "why": why,
                "since_seconds": since(entry, now),
                "latency": latency,
                "latency_of": entry.check.latencies().len(),
                "results": results,
            })
        })
        .collect();
    json!({ "probes": probes })
}

fn since(entry: &Entry, now: Instant) -> Option<f64> {
    let at = entry.check.since()?;
    Some(now.saturating_duration_since(at).as_secs_f64())
}

fn result(kept: &Kept, now: Instant) -> Value {
    let phases: serde_json::Map<String, Value> = kept
        .outcome
        .times
        .iter()
        .map(|(phase, time)| (phase.word().to_owned(), json!(millis(time))))
        .collect();
    let (good, said) = match &kept.outcome.said {
        Ok(said) => (true, said),
        Err(said) => (false, said),
    };
    json!({
        "success": good,
        "said": said,
        "unix_seconds": unix(kept.at, now),
        "age_seconds": now.saturating_duration_since(kept.at).as_secs_f64(),
        "took_ms": millis(kept.outcome.took),
        "phases_ms": phases,
    })
}

/// The wall's time of an instant.
fn unix(at: Instant, now: Instant) -> f64 {
    let present = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let then = present.saturating_sub(now.saturating_duration_since(at));
    (then.as_secs_f64() * 1000.0).round() / 1000.0
}

/// With three digits behind the point.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// The same for people.
pub(crate) fn why_text(board: &Board, only: Option<&str>, now: Instant) -> String {
    let mut text = String::new();
    let those = board
        .entries()
        .filter(|(name, _)| only.is_none_or(|only| only == *name));
    for (name, entry) in those {
        let (state, why) = entry.check.state(now);
        put(&mut text, format_args!("{name}: {}", state.word()));
        if let Some(seconds) = since(entry, now) {
            put(&mut text, format_args!(" since {seconds:.1} s"));
        }
        let told = if why.is_empty() {
            String::new()
        } else {
            format!(": {why}")
        };
        put(&mut text, format_args!("{told}\n"));
        for kept in entry.check.kept() {
            let age = now.saturating_duration_since(kept.at).as_secs_f64();
            let (mark, said) = match &kept.outcome.said {
                Ok(said) => ('+', said),
                Err(said) => ('-', said),
            };
            let took = millis(kept.outcome.took);
            put(
                &mut text,
                format_args!("  [{mark}] {age:.1} s ago, {took} ms"),
            );
            let phases: Vec<String> = kept
                .outcome
                .times
                .iter()
                .map(|(phase, time)| format!("{} {}", phase.word(), millis(time)))
                .collect();
            put(
                &mut text,
                format_args!(" ({}): {said}\n", phases.join(", ")),
            );
        }
    }
    text
}

/// The metrics of [`METRICS`].
pub(crate) fn encode(board: &Board, now: Instant, encoder: &mut Encoder) {
    let number = |good: bool| f64::from(u8::from(good));
    let entries: Vec<(&str, &Entry)> = board.entries().collect();
    for metric in METRICS {
        let kind = match metric.kind {
            "counter" => Kind::Counter,
            _ => Kind::Gauge,
        };
        encoder.family(metric.name, kind, metric.doc);
        if metric.name == "podkit_health_passes" {
            for endpoint in Endpoint::ALL {
                let verdict = board.verdict(endpoint, None, now);
                let passes = verdict.is_some_and(|verdict| verdict.passes);
                let labels = [("endpoint", endpoint.word())];
                encoder.sample(metric.name, &labels, number(passes));
            }
        }
        for (name, entry) in &entries {
            let check = &entry.check;
            let last = check.last().map(|kept| &kept.outcome);
            let mut put = |more: Option<(&str, &str)>, value: f64| {
                let mut labels = vec![("probe", *name)];
                labels.extend(more);
                encoder.sample(metric.name, &labels, value);
            };
            match (metric.name, last) {
                ("probe_success", last) => {
                    put(None, number(last.is_some_and(|last| last.said.is_ok())));
                }
                ("probe_duration_seconds", Some(last)) => put(None, last.took.as_secs_f64()),
                ("probe_phase_duration_seconds", Some(last)) => {
                    for (phase, time) in last.times.iter() {
                        put(Some(("phase", phase.word())), time.as_secs_f64());
                    }
                }
                ("podkit_health_state", _) => {
                    let (state, _) = check.state(now);
                    for one in State::ALL {
                        put(Some(("state", one.word())), number(one == state));
                    }
                }
                ("podkit_health_age_seconds", Some(_)) => {
                    put(None, check.age(now).unwrap_or_default().as_secs_f64());
                }
                ("podkit_health_latency_seconds", _) => {
                    for (of, found, _) in check.latencies().quantiles() {
                        let quantile = if of == 50 { "0.5" } else { "0.99" };
                        put(Some(("quantile", quantile)), found.as_secs_f64());
                    }
                }
                ("podkit_health_results_total", _) => {
                    put(Some(("result", "success")), check.succeeded as f64);
                    put(Some(("result", "failure")), check.failed as f64);
                }
                _ => {}
            }
        }
    }
}

/// The tables of the page.
pub(crate) fn sections(board: &Board, now: Instant) -> Vec<Section> {
    let endpoints = Endpoint::ALL.into_iter().filter_map(|endpoint| {
        let verdict = board.verdict(endpoint, None, now)?;
        let word = if verdict.passes { "passes" } else { "fails" };
        let drained = if verdict.drained.is_some() {
            "drained by hand"
        } else {
            ""
        };
        Some(vec![
            format!("/{}", endpoint.word()),
            word.to_owned(),
            verdict.state.word().to_owned(),
            drained.to_owned(),
        ])
    });
    let probes = board.entries().map(|(name, entry)| {
        let (state, why) = entry.check.state(now);
        let shown = |found: Option<Duration>| {
            found.map_or_else(String::new, |found| format!("{} ms", millis(found)))
        };
        let quantiles = entry.check.latencies().quantiles();
        let of = |percent| {
            let found = quantiles.iter().find(|(of, _, _)| *of == percent);
            shown(found.map(|(_, found, _)| *found))
        };
        let age = entry.check.age(now);
        vec![
            name.to_owned(),
            entry.shown.clone(),
            state.word().to_owned(),
            why,
            age.map_or_else(String::new, |age| format!("{:.1} s", age.as_secs_f64())),
            shown(entry.check.last().map(|kept| kept.outcome.took)),
            of(50),
            of(99),
        ]
    });
    let columns = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    vec![
        Section {
            title: "Endpoints".to_owned(),
            columns: columns(&["Endpoint", "Answer", "State", "Drain"]),
            rows: endpoints.collect(),
            alert: None,
        },
        Section {
            title: "Probes".to_owned(),
            columns: columns(&["Probe", "Asks", "State", "Why", "Age", "Took", "p50", "p99"]),
            rows: probes.collect(),
            alert: None,
        },
    ]
}
