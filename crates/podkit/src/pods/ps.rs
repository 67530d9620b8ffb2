//! `podkit ps`: the pods on this machine, as `kubectl get pods` shows them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::ArgMatches;
use podkit_foundation::error::Failure;
use podkit_foundation::params::ParamSet;
use podkit_pod::control::{Changes, Found, Life};
use serde_json::{Value, json};

use super::status::{list, since, time, words};
use super::table::Table;
use super::{Choice, PodCommand, many, pods_argument, yaml};
use crate::cli;

podkit_foundation::choices! {
    /// The form of the output.
    pub(crate) enum Form {
        /// A table.
        Table = "table",
        /// A table with more columns.
        Wide = "wide",
        /// The objects as JSON.
        Json = "json",
        /// The objects as YAML.
        Yaml = "yaml",
        /// Names only.
        Name = "name",
    }
}

podkit_foundation::params! {
    /// What `ps` takes.
    pub(crate) struct PsParams {
        /// The pods' namespace.
        namespace: String { default: Some("default"), short: Some('n') },
        /// Pods of all namespaces.
        all_namespaces: bool { default: Some("false"), short: Some('A') },
        /// Only pods with these labels: app=web,tier!=db,env in (a, b),!canary.
        selector: Option<String> { short: Some('l') },
        /// Form of the output.
        output: Form { default: Some("table"), short: Some('o') },
        /// Go on, with a line for every change.
        watch: bool { default: Some("false"), short: Some('w') },
        /// Leave the line of headings out.
        no_headers: bool { default: Some("false") },
        /// Where the state of pods is, if not in /run/podkit and /var/lib/podkit.
        state_dir: Option<PathBuf> {},
    }
}

pub(super) const COMMAND: PodCommand = PodCommand {
    name: "ps",
    about: "List pods, as kubectl get pods does",
    usage: "ps [POD...]",
    help: "\
Pods in the foreground are listed as well as detached ones. A detached pod that has ended stays in the list, with its logs, until \
`podkit stop` or the next run of the same name. -o json and yaml give v1 Pod objects.",
    params: PsParams::PARAMS,
    args: pods_argument,
    run,
};

fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let params = PsParams::from_values(&cli::values(PsParams::PARAMS, matches))?;
    let choice = Choice {
        state_dir: params.state_dir.as_ref(),
        namespace: &params.namespace,
        all_namespaces: params.all_namespaces,
        selector: params.selector.as_deref(),
        names: many(matches, "pods"),
    };
    if params.watch {
        return watch(&params, &choice);
    }
    let pods = choice.pods()?;
    match params.output {
        Form::Table | Form::Wide if pods.is_empty() => {
            eprintln!("{}", nothing(&params));
            Ok(ExitCode::SUCCESS)
        }
        Form::Table | Form::Wide => cli::print(&table(&params, &pods, !params.no_headers).text()),
        form => cli::print(&objects(form, &pods, choice.names.len() == 1)),
    }
}

fn nothing(params: &PsParams) -> String {
    match params.all_namespaces {
        true => "No resources found".to_owned(),
        false => format!("No resources found in {} namespace.", params.namespace),
    }
}

fn table(params: &PsParams, pods: &[Found], header: bool) -> Table {
    let wide = params.output == Form::Wide;
    let mut columns = Vec::new();
    if params.all_namespaces {
        columns.push("NAMESPACE");
    }
    columns.extend(["NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    if wide {
        columns.extend(["IP", "NODE", "SUPERVISOR", "CONTAINERS"]);
    }
    let mut table = Table::new(&columns, header);
    let now = SystemTime::now();
    for found in pods {
        let pod = &found.pod;
        let words = words(pod, now);
        let age = time(&pod["metadata"]["creationTimestamp"]);
        let mut row = Vec::new();
        if params.all_namespaces {
            row.push(found.namespace.clone());
        }
        row.extend([
            found.name.clone(),
            words.ready,
            words.status,
            words.restarts,
        ]);
        row.push(age.map_or("<unknown>".to_owned(), |then| since(then, now)));
        if wide {
            let or_none = |value: &Value| value.as_str().unwrap_or("<none>").to_owned();
            row.push(or_none(&pod["status"]["podIP"]));
            row.push(or_none(&pod["spec"]["nodeName"]));
            row.push(match found.life {
                Life::Lives { pid } => pid.to_string(),
                Life::Ended | Life::Lost => "<none>".to_owned(),
            });
            row.push(containers(pod));
        }
        table.row(row);
    }
    table
}

/// `app=1234,tls=1236`: the first process of each that runs.
fn containers(pod: &Value) -> String {
    let status = &pod["status"];
    let all = list(&status["initContainerStatuses"])
        .iter()
        .chain(list(&status["containerStatuses"]));
    let running = all.filter_map(|one| {
        let id = one["containerID"].as_str()?.strip_prefix("podkit://")?;
        Some(format!("{}={id}", one["name"].as_str()?))
    });
    let running: Vec<String> = running.collect();
    match running.is_empty() {
        true => "<none>".to_owned(),
        false => running.join(","),
    }
}

fn objects(form: Form, pods: &[Found], one: bool) -> String {
    if form == Form::Name {
        let line = |pod: &Found| format!("pod/{}\n", pod.name);
        return pods.iter().map(line).collect();
    }
    let value = match pods {
        [pod] if one => pod.pod.clone(),
        pods => json!({
            "apiVersion": "v1",
            "kind": "List",
            "metadata": {"resourceVersion": ""},
            "items": pods.iter().map(|pod| pod.pod.clone()).collect::<Vec<_>>(),
        }),
    };
    render(form == Form::Yaml, &value)
}

/// An object as JSON or YAML.
pub(super) fn render(as_yaml: bool, value: &Value) -> String {
    match as_yaml {
        true => yaml::text(value),
        false => format!("{value:#}\n"),
    }
}

/// The table, and a line for each pod that looks different from before, until somebody ends it.
fn watch(params: &PsParams, choice: &Choice<'_>) -> Result<ExitCode, Failure> {
    let (mut shown, mut widths) = (Vec::<Found>::new(), Vec::new());
    let mut first = true;
    let (machine, mut changes) = (choice.machine(), Changes::default());
    loop {
        let pods = choice.pods()?;
        let dirs = pods.iter().flat_map(Found::dirs);
        if changes.follow(machine.dirs().into_iter().chain(dirs)) {
            continue;
        }
        let same = |a: &Found, b: &Found| {
            (&a.namespace, &a.name) == (&b.namespace, &b.name) && a.life == b.life && a.pod == b.pod
        };
        let looks = |pod: &Found| words(&pod.pod, SystemTime::UNIX_EPOCH);
        // Otherwise its supervisor has only begun, or is clearing up.
        let known = |pod: &Found| {
            !matches!(pod.life, Life::Lives { .. })
                || pod.pod["metadata"]["creationTimestamp"].is_string()
        };
        let news: Vec<Found> = pods
            .iter()
            .filter(|pod| known(pod))
            .filter(|pod| {
                let before = shown
                    .iter()
                    .find(|old| (&old.namespace, &old.name) == (&pod.namespace, &pod.name));
                before.is_none_or(|old| match params.output {
                    Form::Table => looks(old) != looks(pod),
                    _ => !same(old, pod),
                })
            })
            .cloned()
            .collect();
        if first || !news.is_empty() {
            let text = match params.output {
                Form::Table | Form::Wide => {
                    let header = first && !params.no_headers;
                    table(params, &news, header).text_with(&mut widths)
                }
                form => news
                    .iter()
                    .map(|pod| objects(form, std::slice::from_ref(pod), true))
                    .collect(),
            };
            if !shows(&text) {
                return Ok(ExitCode::SUCCESS);
            }
        }
        first = false;
        shown = pods;
        changes
            .wait(&shown)
            .map_err(|error| Failure::runtime("waiting for changes", error))?;
    }
}

/// Prints; false when nobody reads any more.
pub(super) fn shows(text: &str) -> bool {
    use std::io::Write as _;
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).is_ok() && out.flush().is_ok()
}
