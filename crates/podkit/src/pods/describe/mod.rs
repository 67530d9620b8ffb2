//! `podkit describe`: all that is known of a pod, as `kubectl describe pod` sets it. (kubectl, `pkg/describe`, `describePod`)

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::ArgMatches;
use podkit_foundation::error::Failure;
use podkit_foundation::params::ParamSet;
use podkit_pod::control::{Found, Life};
use serde_json::Value;

use super::events::{of, seen};
use super::status::{list, text, time};
use super::table::Table;
use super::{Choice, PodCommand, many, pods_argument, runtime};
use crate::cli;

mod page;

use page::{Page, one_line};

podkit_foundation::params! {
    /// What `describe` takes.
    pub(crate) struct DescribeParams {
        /// The pods' namespace.
        namespace: String { default: Some("default"), short: Some('n') },
        /// Pods of all namespaces.
        all_namespaces: bool { default: Some("false"), short: Some('A') },
        /// Pods with these labels.
        selector: Option<String> { short: Some('l') },
        /// Where the state of pods is, if not in /run/podkit and /var/lib/podkit.
        state_dir: Option<PathBuf> {},
    }
}

pub(super) const COMMAND: PodCommand = PodCommand {
    name: "describe",
    about: "Show all that is known of pods: containers, states, mounts, conditions, events",
    usage: "describe [POD...]",
    help: "",
    params: DescribeParams::PARAMS,
    args: pods_argument,
    run,
};

fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let params = DescribeParams::from_values(&cli::values(DescribeParams::PARAMS, matches))?;
    let choice = Choice {
        state_dir: params.state_dir.as_ref(),
        namespace: &params.namespace,
        all_namespaces: params.all_namespaces,
        selector: params.selector.as_deref(),
        names: many(matches, "pods"),
    };
    let pods = choice.pods()?;
    if pods.is_empty() {
        eprintln!("No resources found in {} namespace.", params.namespace);
    }
    let runtime = runtime()?;
    let texts: Vec<String> = pods
        .iter()
        .map(|pod| describe(pod, &runtime.block_on(of(pod)), SystemTime::now()))
        .collect();
    cli::print(&texts.join("\n\n"))
}

fn describe(found: &Found, events: &[Value], now: SystemTime) -> String {
    let pod = &found.pod;
    let (metadata, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
    let mut page = Page::default();
    page.put(0, "Name", found.name.clone());
    page.put(0, "Namespace", found.namespace.clone());
    let node = text(&spec["nodeName"]).unwrap_or("<none>");
    let host = text(&status["hostIP"]).map(|ip| format!("/{ip}"));
    page.put(0, "Node", format!("{node}{}", host.unwrap_or_default()));
    page.put(0, "Start Time", when(&status["startTime"]));
    page.put_all(0, "Labels", &pairs(&metadata["labels"], "="));
    page.put_all(0, "Annotations", &pairs(&metadata["annotations"], ": "));
    if let Some(deletion) = text(&metadata["deletionTimestamp"])
        && matches!(found.life, Life::Lives { .. })
    {
        page.put(0, "Status", format!("Terminating (until {deletion})"));
        let grace = &metadata["deletionGracePeriodSeconds"];
        page.put(0, "Termination Grace Period", format!("{grace}s"));
    } else {
        page.put(0, "Status", text(&status["phase"]).unwrap_or("Unknown"));
    }
    for (name, field) in [("Reason", "reason"), ("Message", "message")] {
        if let Some(value) = text(&status[field]) {
            page.put(0, name, value);
        }
    }
    page.put(0, "IP", text(&status["podIP"]).unwrap_or_default());
    let ips = list(&status["podIPs"]).iter();
    let ips: Vec<String> = ips
        .filter_map(|one| text(&one["ip"]))
        .map(str::to_owned)
        .collect();
    page.put(0, "IPs", if ips.is_empty() { "<none>" } else { "" });
    for ip in ips {
        page.put(1, "IP", ip);
    }
    page.end_block();
    containers(
        &mut page,
        "Init Containers",
        &spec["initContainers"],
        &status["initContainerStatuses"],
    );
    containers(
        &mut page,
        "Containers",
        &spec["containers"],
        &status["containerStatuses"],
    );
    page.put(0, "Conditions", "");
    page.pair(1, "Type", "Status");
    for one in list(&status["conditions"]) {
        let word = |field: &str| text(&one[field]).unwrap_or_default();
        page.pair(1, word("type"), word("status"));
    }
    page.end_block();
    volumes(&mut page, &spec["volumes"]);
    page.put(
        0,
        "QoS Class",
        text(&status["qosClass"]).unwrap_or("<none>"),
    );
    page.put_all(0, "Node-Selectors", &pairs(&spec["nodeSelector"], "="));
    page.finish() + &events_table(events, now)
}

fn events_table(events: &[Value], now: SystemTime) -> String {
    if events.is_empty() {
        return "Events:  <none>\n".to_owned();
    }
    let mut table = Table::new(&["  Type", "Reason", "Age", "From", "Message"], true);
    let dashes = ["  ----", "------", "----", "----", "-------"];
    table.row(dashes.map(str::to_owned));
    for event in events {
        let text = |value: &Value| value.as_str().unwrap_or_default().trim().to_owned();
        table.row([
            format!("  {}", text(&event["type"])),
            text(&event["reason"]),
            seen(event, now),
            text(&event["source"]["component"]),
            text(&event["message"]),
        ]);
    }
    format!("Events:\n{}", table.text())
}

fn containers(page: &mut Page, title: &str, specs: &Value, statuses: &Value) {
    let specs = list(specs);
    if specs.is_empty() {
        return;
    }
    page.put(0, title, "");
    page.end_block();
    for spec in specs {
        let name = text(&spec["name"]).unwrap_or_default();
        page.put(1, name, "");
        page.end_block();
        let status = list(statuses).iter().find(|one| one["name"] == name);
        container(page, spec, status.unwrap_or(&Value::Null));
        page.end_block();
    }
}

fn container(page: &mut Page, spec: &Value, status: &Value) {
    page.put(
        2,
        "Container ID",
        text(&status["containerID"]).unwrap_or("<none>"),
    );
    page.put(2, "Image", text(&spec["image"]).unwrap_or("<none>"));
    if let Some(id) = text(&status["imageID"]) {
        page.put(2, "Image ID", id);
    }
    let ports = list(&spec["ports"]);
    let port = |port: &Value, field: &str| {
        let protocol = text(&port["protocol"]).unwrap_or("TCP");
        let name = text(&port["name"]).map(|name| format!(" ({name})"));
        let number = port[field].as_u64().unwrap_or(0);
        format!("{number}/{protocol}{}", name.unwrap_or_default())
    };
    let all = |field: &str| -> Vec<String> { ports.iter().map(|one| port(one, field)).collect() };
    let none_or = |all: Vec<String>| match all.is_empty() {
        true => "<none>".to_owned(),
        false => all.join(", "),
    };
    let plural = if ports.len() > 1 { "s" } else { "" };
    page.put(2, &format!("Port{plural}"), none_or(all("containerPort")));
    page.put(2, &format!("Host Port{plural}"), none_or(all("hostPort")));
    for (name, field) in [("Command", "command"), ("Args", "args")] {
        let words = list(&spec[field]);
        if !words.is_empty() {
            page.put(2, name, "");
            for word in words.iter().filter_map(Value::as_str) {
                // As kubectl: a word a line, and a text's own page.
                for line in word.lines() {
                    page.word(3, line);
                }
            }
        }
    }
    state(page, "State", &status["state"]);
    if status["lastState"]["terminated"].is_object() {
        state(page, "Last State", &status["lastState"]);
    }
    page.put(
        2,
        "Ready",
        if status["ready"] == true {
            "True"
        } else {
            "False"
        },
    );
    page.put(
        2,
        "Restart Count",
        status["restartCount"].as_u64().unwrap_or(0).to_string(),
    );
    for (name, field) in [("Limits", "limits"), ("Requests", "requests")] {
        let resources = pairs(&spec["resources"][field], ": ");
        if !resources.is_empty() {
            page.put(2, name, "");
            for resource in resources {
                let (name, value) = resource.split_once(": ").unwrap_or((&resource, ""));
                page.put(3, name, value);
            }
        }
    }
    for (name, field) in [
        ("Liveness", "livenessProbe"),
        ("Readiness", "readinessProbe"),
        ("Startup", "startupProbe"),
    ] {
        if spec[field].is_object() {
            page.put(2, name, probe(&spec[field]));
        }
    }
    environment(page, spec);
    let mounts = list(&spec["volumeMounts"]);
    page.put(2, "Mounts", if mounts.is_empty() { "<none>" } else { "" });
    for mount in mounts {
        let mode = if mount["readOnly"] == true {
            "ro"
        } else {
            "rw"
        };
        let path = text(&mount["mountPath"]).unwrap_or_default();
        let from = text(&mount["name"]).unwrap_or_default();
        let sub = text(&mount["subPath"]).map(|sub| format!(",path=\"{sub}\""));
        let sub = sub.unwrap_or_default();
        page.word(3, &format!("{path} from {from} ({mode}{sub})"));
    }
}

fn state(page: &mut Page, name: &str, state: &Value) {
    let (running, waiting, ended) = (&state["running"], &state["waiting"], &state["terminated"]);
    if running.is_object() {
        page.put(2, name, "Running");
        page.put(3, "Started", when(&running["startedAt"]));
    } else if ended.is_object() {
        page.put(2, name, "Terminated");
        if let Some(reason) = text(&ended["reason"]) {
            page.put(3, "Reason", reason);
        }
        if let Some(message) = text(&ended["message"]) {
            page.put(3, "Message", message);
        }
        page.put(3, "Exit Code", ended["exitCode"].to_string());
        if ended["signal"].as_i64().unwrap_or(0) > 0 {
            page.put(3, "Signal", ended["signal"].to_string());
        }
        page.put(3, "Started", when(&ended["startedAt"]));
        page.put(3, "Finished", when(&ended["finishedAt"]));
    } else {
        page.put(2, name, "Waiting");
        if let Some(reason) = text(&waiting["reason"]) {
            page.put(3, "Reason", reason);
        }
        if let Some(message) = text(&waiting["message"]) {
            page.put(3, "Message", message);
        }
    }
}

/// `http-get http://:8080/ delay=0s timeout=1s period=10s #success=1 #failure=3`
fn probe(probe: &Value) -> String {
    let number = |field: &str, default: u64| probe[field].as_u64().unwrap_or(default);
    let port = |port: &Value| {
        port.as_str()
            .map_or_else(|| port.to_string(), str::to_owned)
    };
    let (http, tcp, grpc) = (&probe["httpGet"], &probe["tcpSocket"], &probe["grpc"]);
    let what = if probe["exec"].is_object() {
        let words = list(&probe["exec"]["command"])
            .iter()
            .filter_map(Value::as_str);
        format!("exec [{}]", words.collect::<Vec<_>>().join(" "))
    } else if http.is_object() {
        let scheme = text(&http["scheme"]).unwrap_or("HTTP").to_lowercase();
        let path = text(&http["path"]).unwrap_or("/");
        let path = path.strip_prefix('/').unwrap_or(path);
        let host = text(&http["host"]).unwrap_or_default();
        format!("http-get {scheme}://{host}:{}/{path}", port(&http["port"]))
    } else if tcp.is_object() {
        let host = text(&tcp["host"]).unwrap_or_default();
        format!("tcp-socket {host}:{}", port(&tcp["port"]))
    } else if grpc.is_object() {
        let service = text(&grpc["service"]).unwrap_or_default();
        format!("grpc <pod>:{} {service}", port(&grpc["port"]))
    } else {
        "unknown".to_owned()
    };
    format!(
        "{what} delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", 0),
        number("timeoutSeconds", 1),
        number("periodSeconds", 10),
        number("successThreshold", 1),
        number("failureThreshold", 3),
    )
}

fn environment(page: &mut Page, spec: &Value) {
    let sources = list(&spec["envFrom"]);
    if !sources.is_empty() {
        page.put(2, "Environment Variables from", "");
        for source in sources {
            let (kind, from) = match source["configMapRef"].is_object() {
                true => ("ConfigMap", &source["configMapRef"]),
                false => ("Secret", &source["secretRef"]),
            };
            let prefix = text(&source["prefix"]).map(|prefix| format!(" with prefix '{prefix}'"));
            let optional = from["optional"] == true;
            let what = format!("{kind}{}  Optional: {optional}", prefix.unwrap_or_default());
            page.put(3, text(&from["name"]).unwrap_or_default(), what);
        }
    }
    let variables = list(&spec["env"]);
    page.put(
        2,
        "Environment",
        if variables.is_empty() { "<none>" } else { "" },
    );
    for variable in variables {
        let name = text(&variable["name"]).unwrap_or_default();
        let from = &variable["valueFrom"];
        let key = |of: &Value, kind: &str| {
            let (key, name) = (&of["key"], &of["name"]);
            let optional = of["optional"] == true;
            format!(
                "<set to the key '{}' of {kind} '{}'>  Optional: {optional}",
                key.as_str().unwrap_or_default(),
                name.as_str().unwrap_or_default(),
            )
        };
        let value = if from["fieldRef"].is_object() {
            let path = text(&from["fieldRef"]["fieldPath"]).unwrap_or_default();
            format!(" (v1:{path})")
        } else if from["resourceFieldRef"].is_object() {
            let of = &from["resourceFieldRef"];
            let resource = text(&of["resource"]).unwrap_or_default();
            format!(" ({resource})")
        } else if from["secretKeyRef"].is_object() {
            key(&from["secretKeyRef"], "secret")
        } else if from["configMapKeyRef"].is_object() {
            key(&from["configMapKeyRef"], "config map")
        } else {
            one_line(variable["value"].as_str().unwrap_or_default())
        };
        page.put(3, name, value);
    }
}

fn volumes(page: &mut Page, volumes: &Value) {
    let volumes = list(volumes);
    page.put(0, "Volumes", if volumes.is_empty() { "<none>" } else { "" });
    for volume in volumes {
        page.put(1, text(&volume["name"]).unwrap_or_default(), "");
        let sources = volume.as_object().into_iter().flatten();
        for (kind, source) in sources.filter(|(field, _)| *field != "name") {
            let mut title = kind.clone();
            title[..1].make_ascii_uppercase();
            page.put(2, "Type", title);
            let fields = source.as_object().into_iter().flatten();
            for (field, value) in fields {
                let mut name = field.clone();
                name[..1].make_ascii_uppercase();
                let value = match value {
                    Value::String(text) => one_line(text),
                    Value::Array(items) => format!("{} items", items.len()),
                    other => other.to_string(),
                };
                page.put(2, &name, value);
            }
        }
    }
    page.end_block();
}

/// `NAME=VALUE` of each.
fn pairs(value: &Value, between: &str) -> Vec<String> {
    let fields = value.as_object().into_iter().flatten();
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    fields
        .map(|(name, value)| format!("{name}{between}{}", one_line(&text(value))))
        .collect()
}

/// `Fri, 20 Nov 2026 13:00:00 +0000`, as kubectl writes times. (RFC 1123)
fn when(value: &Value) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let Some(at) = time(value) else {
        return "<unknown>".to_owned();
    };
    let seconds = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let day = DAYS[usize::try_from(seconds / 86400 % 7).unwrap_or(0)];
    // `2026-11-20T13:00:00Z`
    let text = humantime::format_rfc3339_seconds(at).to_string();
    let month = text[5..7].parse::<usize>().unwrap_or(1);
    format!(
        "{day}, {} {} {} {} +0000",
        &text[8..10],
        MONTHS[(month - 1) % 12],
        &text[..4],
        &text[11..19]
    )
}
