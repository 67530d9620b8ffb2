//! Items as lines.
//!
//! Text, one line an item: `NAME MARK TEXT`, where MARK is `|` a log line, `*` an event, `!` a warning, `=` a new state.
//!
//! JSON, one object a line, always with `ts` (RFC 3339, UTC), `type`, `pod` and `namespace`, then by `type`:
//! - `log`: `container`, `stream` (`stdout` or `stderr`), `line` (what is not UTF-8 replaced), `partial: true` when the
//!   line's end has not come yet and the next one goes on with it;
//! - `event`: `level` (`Normal` or `Warning`), `reason`, `message`, `container` unless it is about the pod;
//! - `container`: `container`, `state` (`waiting`, `running` or `terminated`), `reason`, `message`, `exitCode`, `signal`
//!   as they apply, `ready`, `started`, `restarts`;
//! - `pod`: `phase`, `ready`;
//! - `address`: `container`, `url`, `name` when the port has one;
//! - `warning`: `message`;
//! - `end`: `phase`, `exitCode` (podkit's own).

use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::super::OutputFormat;
use super::super::machine::{ContainerStatus, Phase, State};
use super::{Item, Stream, Turn};
use crate::plan::PodPlan;

/// Containers' colours, in turn. Not red, which means trouble.
const COLORS: [&str; 6] = ["36", "33", "32", "35", "34", "96"];
const POD_COLOR: &str = "1";
const WARNING_COLOR: &str = "31";
const STATE_COLOR: &str = "2";
/// Longer names push their own lines to the right, not everybody's.
const WIDTH_MAX: usize = 24;

/// Makes lines of items.
#[derive(Debug)]
pub(super) struct Renderer {
    format: OutputFormat,
    terminal: bool,
    color: bool,
    pod: String,
    namespace: String,
    /// More come when the pod's definition is edited.
    containers: RwLock<Vec<String>>,
    prefix: String,
    width: usize,
}

impl Renderer {
    pub(super) fn new(
        plan: &PodPlan,
        format: OutputFormat,
        terminal: bool,
        color: bool,
        prefix_pod: bool,
    ) -> Self {
        let containers: Vec<String> = plan.containers.iter().map(|c| c.name.clone()).collect();
        let prefix = if prefix_pod {
            format!("{}/", plan.name)
        } else {
            String::new()
        };
        let longest = containers
            .iter()
            .map(|name| prefix.len() + name.len())
            .chain([plan.name.len()])
            .max();
        Self {
            format,
            terminal,
            color,
            pod: plan.name.clone(),
            namespace: plan.namespace.clone(),
            containers: containers.into(),
            prefix,
            width: longest.unwrap_or(0).min(WIDTH_MAX),
        }
    }

    /// One more container.
    pub(super) fn add(&self, container: &str) {
        let mut containers = self
            .containers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        containers.push(container.to_owned());
    }

    fn name(&self, id: usize) -> String {
        let containers = self.containers.read();
        let containers = containers.unwrap_or_else(PoisonError::into_inner);
        containers.get(id).cloned().unwrap_or_default()
    }

    /// Appends the item's line.
    pub(super) fn render(&self, at: SystemTime, item: &Item<'_>, to: &mut Vec<u8>) {
        match self.format {
            OutputFormat::Text => self.text(item, to),
            OutputFormat::Json => self.json(at, item, to),
        }
    }

    fn text(&self, item: &Item<'_>, to: &mut Vec<u8>) {
        match item {
            Item::Log {
                container, line, ..
            } => {
                self.head(Some(*container), '|', to);
                self.log_line(line, to);
            }
            Item::Event(event) if event.warning => {
                let text = format!("{}: {}", event.reason, event.message);
                self.line(event.container, '!', WARNING_COLOR, &text, to);
            }
            // Started follows, or Failed.
            Item::Event(event) if event.reason == "Created" => {}
            Item::Event(event) => {
                let text = format!("{}: {}", event.reason, event.message);
                self.line(event.container, '*', "", &text, to);
            }
            Item::Container {
                container,
                status,
                turn,
            } => {
                if let Some((color, text)) = state_text(status, *turn) {
                    self.line(Some(*container), '=', color, &text, to);
                }
            }
            // The last phase is shown at the end.
            Item::Pod { turn, .. } => {
                if let Some((color, text)) = turn_text(*turn) {
                    self.line(None, '=', color, text, to);
                }
            }
            Item::Address {
                container,
                url,
                name,
            } => {
                let name = name.map(|name| format!(", {name}")).unwrap_or_default();
                let text = format!("Open {url} ({container}{name})");
                self.line(None, '=', "1", &text, to);
            }
            Item::Warning { message } => {
                let text = format!("Warning: {message}");
                self.line(None, '!', WARNING_COLOR, &text, to);
            }
            Item::End { phase, exit_code } => {
                let text = match (phase, exit_code) {
                    // Asked to: how its containers took it does not matter.
                    (Phase::Failed, 0) => "Stopped".to_owned(),
                    (_, 0) => format!("Ended: {}", phase.word()),
                    _ => format!("Ended: {}, exit code {exit_code}", phase.word()),
                };
                self.line(None, '=', "1", &text, to);
            }
        }
    }

    fn head(&self, container: Option<usize>, mark: char, to: &mut Vec<u8>) {
        let (name, color) = match container {
            Some(id) => (
                format!("{}{}", self.prefix, self.name(id)),
                COLORS[id % COLORS.len()],
            ),
            None => (self.pod.clone(), POD_COLOR),
        };
        let width = self.width;
        let head = if self.color {
            format!("\x1b[{color}m{name:width$} {mark}\x1b[0m ")
        } else {
            format!("{name:width$} {mark} ")
        };
        to.extend_from_slice(head.as_bytes());
    }

    fn line(
        &self,
        container: Option<usize>,
        mark: char,
        color: &str,
        text: &str,
        to: &mut Vec<u8>,
    ) {
        self.head(container, mark, to);
        let colored = self.color && !color.is_empty();
        if colored {
            to.extend_from_slice(format!("\x1b[{color}m").as_bytes());
        }
        // Messages hold what containers and peers have said.
        harmless(text, false, to);
        if colored {
            to.extend_from_slice(b"\x1b[0m");
        }
        to.push(b'\n');
    }

    fn log_line(&self, line: &[u8], to: &mut Vec<u8>) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.terminal {
            let text = String::from_utf8_lossy(line);
            if harmless(&text, self.color, to) {
                to.extend_from_slice(b"\x1b[0m");
            }
        } else {
            to.extend_from_slice(line);
        }
        to.push(b'\n');
    }

    fn json(&self, at: SystemTime, item: &Item<'_>, to: &mut Vec<u8>) {
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
        put(
            "ts",
            humantime::format_rfc3339_millis(at).to_string().into(),
        );
        put("type", kind(item).into());
        put("pod", self.pod.clone().into());
        put("namespace", self.namespace.clone().into());
        let name = |id: usize| Value::from(self.name(id));
        match item {
            Item::Log {
                container,
                stream,
                line,
                partial,
            } => {
                put("container", name(*container));
                let stream = match stream {
                    Stream::Stdout => "stdout",
                    Stream::Stderr => "stderr",
                };
                put("stream", stream.into());
                put("line", String::from_utf8_lossy(line).into());
                if *partial {
                    put("partial", true.into());
                }
            }
            Item::Event(event) => {
                let level = if event.warning { "Warning" } else { "Normal" };
                put("level", level.into());
                put("reason", event.reason.into());
                put("message", event.message.clone().into());
                if let Some(id) = event.container {
                    put("container", name(id));
                }
            }
            Item::Container {
                container, status, ..
            } => {
                put("container", name(*container));
                for (key, value) in state_fields(status) {
                    put(key, value);
                }
            }
            Item::Pod { phase, ready, .. } => {
                put("phase", phase.word().into());
                put("ready", (*ready).into());
            }
            Item::Address {
                container,
                url,
                name,
            } => {
                put("container", (*container).into());
                put("url", (*url).into());
                if let Some(name) = name {
                    put("name", (*name).into());
                }
            }
            Item::Warning { message } => {
                put("message", (*message).into());
            }
            Item::End { phase, exit_code } => {
                put("phase", phase.word().into());
                put("exitCode", (*exit_code).into());
            }
        }
        to.extend_from_slice(Value::Object(object).to_string().as_bytes());
        to.push(b'\n');
    }
}

fn kind(item: &Item<'_>) -> &'static str {
    match item {
        Item::Log { .. } => "log",
        Item::Event(_) => "event",
        Item::Container { .. } => "container",
        Item::Pod { .. } => "pod",
        Item::Address { .. } => "address",
        Item::Warning { .. } => "warning",
        Item::End { .. } => "end",
    }
}

/// What people are told of a state: that it ended, and changes of readiness. That it waits or runs is said by events.
fn state_text(status: &ContainerStatus, turn: Turn) -> Option<(&'static str, String)> {
    match &status.state {
        State::Terminated(end) => {
            let color = if end.code == 0 {
                STATE_COLOR
            } else {
                WARNING_COLOR
            };
            Some((color, format!("Terminated: {}", end.line())))
        }
        _ => turn_text(turn).map(|(color, text)| (color, text.to_owned())),
    }
}

fn turn_text(turn: Turn) -> Option<(&'static str, &'static str)> {
    match turn {
        Turn::Ready => Some((STATE_COLOR, "Ready")),
        Turn::NotReady => Some((WARNING_COLOR, "Not ready")),
        Turn::Neither => None,
    }
}

/// The fields of a state, for JSON.
pub(super) fn state_fields(status: &ContainerStatus) -> Vec<(&'static str, Value)> {
    let mut fields: Vec<(&'static str, Value)> = Vec::new();
    match &status.state {
        State::Waiting {
            reason, message, ..
        } => {
            fields.push(("state", "waiting".into()));
            fields.push(("reason", (*reason).into()));
            if !message.is_empty() {
                fields.push(("message", message.clone().into()));
            }
        }
        State::Running { .. } => fields.push(("state", "running".into())),
        State::Terminated(end) => {
            fields.push(("state", "terminated".into()));
            fields.push(("reason", end.reason.into()));
            if !end.message.is_empty() {
                fields.push(("message", end.message.clone().into()));
            }
            fields.push(("exitCode", end.code.into()));
            if let Some(signal) = end.signal {
                fields.push(("signal", signal.into()));
            }
        }
    }
    fields.push(("ready", status.ready.into()));
    fields.push(("started", status.started.into()));
    fields.push(("restarts", status.restarts.into()));
    fields
}

/// Appends text that can't move the cursor, change a title or start a line. With `sgr` colours (`ESC [ … m`) pass;
/// true when one did, so that they can be ended.
pub(crate) fn harmless(text: &str, sgr: bool, to: &mut Vec<u8>) -> bool {
    let mut colored = false;
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_control() && c != '\t') {
        to.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        if let Some(length) = sgr_length(rest).filter(|_| sgr) {
            to.extend_from_slice(&rest.as_bytes()[..length]);
            rest = &rest[length..];
            colored = true;
            continue;
        }
        let control = rest.chars().next().unwrap_or('\0');
        to.extend_from_slice(control.escape_default().to_string().as_bytes());
        rest = &rest[control.len_utf8()..];
    }
    to.extend_from_slice(rest.as_bytes());
    colored
}

/// The length of the "select graphic rendition" sequence that the text begins with. (ECMA-48, 8.3.117)
fn sgr_length(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\x1b[")?;
    let end = parameters.find(|c: char| !matches!(c, '0'..='9' | ';' | ':'))?;
    parameters[end..].starts_with('m').then_some(2 + end + 1)
}
