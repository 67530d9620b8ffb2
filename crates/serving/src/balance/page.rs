//! What is shown and asked: the sections of `/`, the page `/live`, `/upstreams`, and draining (no I/O).

use podkit_dataplane::http::proxy::HttpMetrics;
use podkit_dataplane::module::{Answer, Section};
use podkit_dataplane::upstream::{Membership, Shown};
use podkit_foundation::lifecycle::Lifecycle;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::page::{Page, text};

pub(super) const PAGE: Page = Page {
    style: include_str!("page/live.css"),
    json: "/upstreams",
    plain: "<a href=\"/\">The same without plots</a>.",
    main: include_str!("page/live.html"),
    script: "/live.js",
};

pub(super) fn script() -> Answer {
    crate::page::script(include_str!("page/live.js"))
}

/// The upstreams, and what is wrong with their sources.
pub(crate) fn shown(membership: &Membership, problems: &[String], now: Instant) -> Value {
    json!({
        "upstreams": membership.shown(now),
        "panic": membership.panics(now),
        "problems": problems,
    })
}

/// Answers a POST to `NAME/drain` or `NAME/undrain`.
pub(crate) fn drain(membership: &Membership, asked: &str, now: Instant) -> Answer {
    let asked = asked.rsplit_once('/').and_then(|(name, verb)| match verb {
        "drain" => Some((decoded(name)?, true)),
        "undrain" => Some((decoded(name)?, false)),
        _ => None,
    });
    let Some((name, drained)) = asked else {
        return text(
            404,
            "not found; an upstream's NAME/drain and NAME/undrain take a POST",
        );
    };
    match membership.drain(&name, drained, now) {
        Err(unknown) => text(404, &unknown.to_string()),
        Ok(changed) => {
            let word = if drained { "drained" } else { "taken back" };
            if changed {
                tracing::info!(upstream = name, "{word} by request");
            }
            text(200, &format!("{name} is {word}"))
        }
    }
}

/// Percent-decodes a name; None when it is not UTF-8 then, or a % is not followed by two digits.
pub(crate) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                bytes.push(u8::try_from(high * 16 + low).ok()?);
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

/// The upstreams for `/`.
pub(crate) fn upstreams(membership: &Membership, problems: &[String], now: Instant) -> Section {
    let columns = [
        "Upstream",
        "State",
        "Why",
        "Weight",
        "Priority",
        "In flight",
        "Answered",
        "Failed",
        "Ejected",
    ];
    let row = |one: &Shown| {
        vec![
            one.name.clone(),
            one.state.to_owned(),
            one.reason.clone(),
            one.weight.to_string(),
            one.priority.to_string(),
            one.in_flight.to_string(),
            one.answered.to_string(),
            one.failed.to_string(),
            one.ejected.to_string(),
        ]
    };
    let mut alerts = Vec::new();
    if membership.panics(now) {
        alerts.push(
            "Too few upstreams take requests, so that all are used (--panic-share).".to_owned(),
        );
    }
    if !problems.is_empty() {
        alerts.push(format!(
            "Upstreams are not followed, the former ones stay: {}.",
            problems.join("; ")
        ));
    }
    let shown = membership.shown(now);
    Section {
        title: "Upstreams".to_owned(),
        columns: columns.map(str::to_owned).to_vec(),
        rows: shown.iter().map(row).collect(),
        alert: (!alerts.is_empty()).then(|| alerts.join(" ")),
    }
}

/// The figures for `/`.
pub(crate) fn live(metrics: &HttpMetrics, connections: usize, lifecycle: &Lifecycle) -> Section {
    let [client, upstream, podkit] = metrics.faulted();
    let rows = [
        (
            "Connections open",
            format!("{} of at most {}", lifecycle.in_flight(), connections),
        ),
        ("Connections so far", lifecycle.begun().to_string()),
        ("Requests answered", metrics.answered().to_string()),
        ("Requests sent again", metrics.retried().to_string()),
        (
            "Requests in error",
            format!("{upstream} by upstreams, {client} by clients, {podkit} by podkit"),
        ),
    ];
    Section {
        title: "Live".to_owned(),
        columns: Vec::new(),
        rows: rows
            .into_iter()
            .map(|(name, value)| vec![name.to_owned(), value])
            .collect(),
        alert: None,
    }
}
