//! `podkit events`: what has happened to the pods, as `kubectl events` shows it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::ArgMatches;
use podkit_foundation::error::Failure;
use podkit_foundation::params::ParamSet;
use podkit_pod::control::{Client, Found, Life, Request};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::ps::{render, shows};
use super::status::{since, time};
use super::table::Table;
use super::{Choice, PodCommand, many, pods_argument, runtime};
use crate::cli;

podkit_foundation::choices! {
    /// The form of the output.
    pub(crate) enum Form {
        /// A table.
        Table = "table",
        /// The objects as JSON.
        Json = "json",
        /// The objects as YAML.
        Yaml = "yaml",
    }
}

podkit_foundation::params! {
    /// What `events` takes.
    pub(crate) struct EventsParams {
        /// The pods' namespace.
        namespace: String { default: Some("default"), short: Some('n') },
        /// Events of all namespaces.
        all_namespaces: bool { default: Some("false"), short: Some('A') },
        /// Only of pods with these labels.
        selector: Option<String> { short: Some('l') },
        /// Only of these types: Normal, Warning.
        types: Vec<String> {},
        /// Go on, with new ones.
        watch: bool { default: Some("false"), short: Some('w') },
        /// Form of the output.
        output: Form { default: Some("table"), short: Some('o') },
        /// Leave the line of headings out.
        no_headers: bool { default: Some("false") },
        /// Where the state of pods is, if not in /run/podkit and /var/lib/podkit.
        state_dir: Option<PathBuf> {},
    }
}

pub(super) const COMMAND: PodCommand = PodCommand {
    name: "events",
    about: "Show what has happened to pods",
    usage: "events [POD...]",
    help: "Events that are alike are one, with a count. A pod's supervisor keeps the last 256.",
    params: EventsParams::PARAMS,
    args: pods_argument,
    run,
};

/// How long a supervisor that hangs holds the others up.
const ANSWER: Duration = Duration::from_secs(2);

fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let params = EventsParams::from_values(&cli::values(EventsParams::PARAMS, matches))?;
    let choice = Choice {
        state_dir: params.state_dir.as_ref(),
        namespace: &params.namespace,
        all_namespaces: params.all_namespaces,
        selector: params.selector.as_deref(),
        names: many(matches, "pods"),
    };
    let pods = choice.pods()?;
    let runtime = runtime()?;
    if params.watch {
        return runtime.block_on(watch(&params, pods));
    }
    let mut events: Vec<Value> = runtime.block_on(async {
        let mut all = Vec::new();
        for pod in &pods {
            all.extend(of(pod).await);
        }
        all
    });
    events.retain(|event| wanted(&params, event));
    events.sort_by_key(|event| time(&event["lastTimestamp"]));
    match params.output {
        Form::Table if events.is_empty() => {
            eprintln!("No events found.");
            Ok(ExitCode::SUCCESS)
        }
        Form::Table => cli::print(&table(&params, &events, !params.no_headers).text()),
        form => {
            let list = json!({
                "apiVersion": "v1",
                "kind": "List",
                "metadata": {"resourceVersion": ""},
                "items": events,
            });
            cli::print(&render(form == Form::Yaml, &list))
        }
    }
}

fn wanted(params: &EventsParams, event: &Value) -> bool {
    let kind = event["type"].as_str().unwrap_or_default();
    let is = |wanted: &String| wanted.eq_ignore_ascii_case(kind);
    params.types.is_empty() || params.types.iter().any(is)
}

/// The events of a pod: its supervisor's, or those that are kept.
pub(super) async fn of(pod: &Found) -> Vec<Value> {
    let Life::Lives { .. } = pod.life else {
        return pod.events.clone();
    };
    let ask = async {
        let (_client, mut reply) = Client::ask(&pod.run, &Request::Events { watch: false }).await?;
        let mut events = Vec::new();
        while let Some(event) = reply.object().await? {
            events.push(event);
        }
        Ok::<_, podkit_pod::control::ClientError>(events)
    };
    match tokio::time::timeout(ANSWER, ask).await {
        Ok(Ok(events)) => events,
        // It has ended in between: nothing is left to show.
        Ok(Err(podkit_pod::control::ClientError::Gone)) => Vec::new(),
        Ok(Err(error)) => {
            eprintln!("podkit: pod {}: {error}", pod.name);
            Vec::new()
        }
        Err(_) => {
            eprintln!("podkit: pod {}: its supervisor does not answer", pod.name);
            Vec::new()
        }
    }
}

async fn watch(params: &EventsParams, pods: Vec<Found>) -> Result<ExitCode, Failure> {
    let (send, mut receive) = mpsc::channel(64);
    for pod in pods {
        let send = send.clone();
        tokio::spawn(async move {
            let events = pod.events.clone();
            for event in events {
                // Whoever shows them has ended.
                if send.send(event).await.is_err() {
                    return;
                }
            }
            let asked = Client::ask(&pod.run, &Request::Events { watch: true }).await;
            if let Ok((_client, mut reply)) = asked {
                while let Ok(Some(event)) = reply.object().await {
                    if send.send(event).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
    drop(send);
    let mut widths = Vec::new();
    let mut first = true;
    while let Some(event) = receive.recv().await {
        let mut events = vec![event];
        while let Ok(event) = receive.try_recv() {
            events.push(event);
        }
        events.retain(|event| wanted(params, event));
        if events.is_empty() {
            continue;
        }
        let text: String = match params.output {
            Form::Table => {
                let header = std::mem::replace(&mut first, false) && !params.no_headers;
                table(params, &events, header).text_with(&mut widths)
            }
            form => {
                let each = events.iter();
                each.map(|event| render(form == Form::Yaml, event))
                    .collect()
            }
        };
        if !shows(&text) {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(params: &EventsParams, events: &[Value], header: bool) -> Table {
    let mut columns = Vec::new();
    if params.all_namespaces {
        columns.push("NAMESPACE");
    }
    columns.extend(["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]);
    let mut table = Table::new(&columns, header);
    let now = SystemTime::now();
    for event in events {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut row = Vec::new();
        if params.all_namespaces {
            row.push(text(&event["metadata"]["namespace"]));
        }
        row.push(seen(event, now));
        row.push(text(&event["type"]));
        row.push(text(&event["reason"]));
        row.push(format!("Pod/{}", text(&event["involvedObject"]["name"])));
        row.push(text(&event["message"]).trim().to_owned());
        table.row(row);
    }
    table
}

/// `4s`, or `4s (x3 over 2m)`.
pub(super) fn seen(event: &Value, now: SystemTime) -> String {
    let ago =
        |value: &Value| time(value).map_or_else(|| "<unknown>".to_owned(), |then| since(then, now));
    let last = ago(&event["lastTimestamp"]);
    match event["count"].as_u64() {
        Some(count) if count > 1 => {
            format!("{last} (x{count} over {})", ago(&event["firstTimestamp"]))
        }
        _ => last,
    }
}
