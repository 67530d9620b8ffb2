//! `podkit logs`: what a pod's containers have written, as `kubectl logs` shows it. Read from the files: the supervisor has no part in
//! it, and what has ended can be read as well.

mod segments;

use std::collections::VecDeque;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::ArgMatches;
use podkit_foundation::error::Failure;
use podkit_foundation::params::{ParamError, ParamSet};
use podkit_pod::control::{Changes, Found, Life, Machine};
use serde_json::Value;

use self::segments::{Entry, Segments, latest};
use super::exec::container;
use super::status::{list, text};
use super::{Choice, PodCommand, one, pod_argument};
use crate::cli;

podkit_foundation::params! {
    /// What `logs` takes.
    pub(crate) struct LogsParams {
        /// The container; the annotation kubectl.kubernetes.io/default-container, or the first, when not given.
        container: Option<String> { short: Some('c') },
        /// All containers, init containers too.
        all_containers: bool { default: Some("false") },
        /// Go on with what is written, until the container ends.
        follow: bool { default: Some("false"), short: Some('f') },
        /// The run before the present one.
        previous: bool { default: Some("false"), short: Some('p') },
        /// Only so many of the last lines; all when not given.
        tail: Option<u64> {},
        /// Only lines that are not older than this.
        since: Option<Duration> {},
        /// Only lines from this time on (RFC 3339).
        since_time: Option<String> {},
        /// The time before each line.
        timestamps: bool { default: Some("false") },
        /// Pod and container before each line.
        prefix: bool { default: Some("false") },
        /// The pod's namespace.
        namespace: String { default: Some("default"), short: Some('n') },
        /// Where the state of pods is, if not in /run/podkit and /var/lib/podkit.
        state_dir: Option<PathBuf> {},
    }
}

pub(super) const COMMAND: PodCommand = PodCommand {
    name: "logs",
    about: "Print the logs of a pod's containers",
    usage: "logs [-f] POD [-c CONTAINER]",
    help: "\
The files are in the CRI's format, below lib/pods/POD/logs/CONTAINER of the state: the present run's and the one's before it.",
    params: LogsParams::PARAMS,
    args: pod_argument,
    run,
};

/// So much of a log is read before the others get their turn.
const TURN: usize = 1 << 20;

/// Which lines, and how they are shown.
struct View<'a> {
    params: &'a LogsParams,
    from: Option<SystemTime>,
}

/// One container's log.
struct Source {
    container: String,
    run: u64,
    segments: Segments,
    prefix: String,
    /// The last entry was a part of a line.
    inside: bool,
    ended: bool,
}

fn run(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let params = LogsParams::from_values(&cli::values(LogsParams::PARAMS, matches))?;
    let choice = Choice {
        state_dir: params.state_dir.as_ref(),
        namespace: &params.namespace,
        all_namespaces: false,
        selector: None,
        names: Vec::new(),
    };
    let view = View {
        from: from(&params)?,
        params: &params,
    };
    let machine = choice.machine();
    let found = choice.pod(&machine, &one(matches, "pod"))?;
    let mut sources = sources(&found, &params)?;
    let mut out = BufWriter::with_capacity(64 * 1024, std::io::stdout());
    let mut shown = first(&view, &mut sources, &mut out)?;
    if params.follow {
        shown = shown && follow(&view, &machine, &found, &mut sources, &mut out)?;
    }
    let _nobody_reads = !shown;
    Ok(ExitCode::SUCCESS)
}

fn from(params: &LogsParams) -> Result<Option<SystemTime>, Failure> {
    match (&params.since, &params.since_time) {
        (Some(_), Some(_)) => {
            let why = "at most one of --since and --since-time may be used";
            Err(ParamError::new("since", why).into())
        }
        (Some(since), None) => Ok(SystemTime::now().checked_sub(*since)),
        (None, Some(time)) => humantime::parse_rfc3339(time).map(Some).map_err(|_| {
            let why = format!("\"{time}\" is not a time; expected such as 2026-11-20T13:00:00Z");
            ParamError::new("since-time", why).into()
        }),
        (None, None) => Ok(None),
    }
}

fn sources(found: &Found, params: &LogsParams) -> Result<Vec<Source>, Failure> {
    let spec = &found.pod["spec"];
    let all = list(&spec["initContainers"])
        .iter()
        .chain(list(&spec["containers"]));
    let all: Vec<&str> = all.filter_map(|one| one["name"].as_str()).collect();
    let names = match params.all_containers {
        true => all.iter().map(|&name| name.to_owned()).collect(),
        false => vec![container(found, params.container.as_deref(), false)],
    };
    let source = |name: String| -> Result<Option<Source>, Failure> {
        if !all.contains(&name.as_str()) {
            let all = all.join(", ");
            return Err(Failure::Runtime(format!(
                "Error (BadRequest): container {name} is not valid for pod {}; there are {all}",
                found.name
            )));
        }
        let dir = found.logs.join(&name);
        let status = status(&found.pod, &name);
        let now = status["restartCount"].as_u64().unwrap_or(0);
        let run = match params.previous {
            false => latest(&dir).unwrap_or(now).max(now),
            true if now == 0 && params.all_containers => return Ok(None),
            true if now == 0 => {
                return Err(Failure::Runtime(format!(
                    "Error (BadRequest): previous terminated container \"{name}\" in pod \"{}\" not found",
                    found.name
                )));
            }
            true => now - 1,
        };
        let waiting = text(&status["state"]["waiting"]["reason"]);
        if let Some(reason) = waiting
            && latest(&dir).is_none()
            && now == 0
            && !params.follow
            && !params.all_containers
        {
            return Err(Failure::Runtime(format!(
                "Error (BadRequest): container \"{name}\" in pod \"{}\" is waiting to start: {reason}",
                found.name
            )));
        }
        let prefix = match params.prefix {
            true => format!("[pod/{}/{name}] ", found.name),
            false => String::new(),
        };
        Ok(Some(Source {
            segments: Segments::new(&dir, run),
            container: name,
            run,
            prefix,
            inside: false,
            ended: false,
        }))
    };
    let sources: Result<Vec<_>, _> = names.into_iter().map(source).collect();
    Ok(sources?.into_iter().flatten().collect())
}

fn status<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let status = &pod["status"];
    let mut all = list(&status["initContainerStatuses"])
        .iter()
        .chain(list(&status["containerStatuses"]));
    all.find(|one| one["name"] == name).unwrap_or(&Value::Null)
}

/// What is there; false when nobody reads it.
fn first(
    view: &View<'_>,
    sources: &mut [Source],
    out: &mut BufWriter<std::io::Stdout>,
) -> Result<bool, Failure> {
    let tail = view
        .params
        .tail
        .map(|tail| usize::try_from(tail).unwrap_or(usize::MAX));
    for source in sources {
        let mut last: VecDeque<Vec<u8>> = VecDeque::new();
        let mut text = Vec::new();
        let mut open = true;
        let (mut lines, mut inside) = (0, source.inside);
        let prefix = source.prefix.clone();
        source
            .segments
            .read(&mut |line| {
                let Some(entry) = Entry::parse(line).filter(|entry| view.wants(entry)) else {
                    return true;
                };
                match tail {
                    None => {
                        text.clear();
                        view.show(&entry, &prefix, &mut inside, &mut text);
                        open = out.write_all(&text).is_ok();
                    }
                    Some(tail) => {
                        last.push_back(line.to_vec());
                        lines += usize::from(!entry.partial);
                        while lines > tail
                            && let Some(first) = last.pop_front()
                        {
                            let first = Entry::parse(&first);
                            lines -= usize::from(first.is_some_and(|first| !first.partial));
                        }
                    }
                }
                open
            })
            .map_err(|error| unreadable(source, &error))?;
        for line in &last {
            if let Some(entry) = Entry::parse(line) {
                text.clear();
                view.show(&entry, &prefix, &mut inside, &mut text);
                open = open && out.write_all(&text).is_ok();
            }
        }
        source.inside = inside;
        if !open {
            return Ok(false);
        }
    }
    Ok(out.flush().is_ok())
}

/// What comes, until all have ended; false when nobody reads it.
fn follow(
    view: &View<'_>,
    machine: &Machine,
    found: &Found,
    sources: &mut [Source],
    out: &mut BufWriter<std::io::Stdout>,
) -> Result<bool, Failure> {
    let mut changes = Changes::default();
    loop {
        let logs = sources
            .iter()
            .map(|source| found.logs.join(&source.container));
        let looks_again = changes.follow(found.dirs().chain(logs));
        let mut rest = false;
        // Looked at before the files are read: what was written before an end is read then.
        let now = machine.pod(&found.namespace, &found.name).ok();
        let lives = |pod: &Found| matches!(pod.life, Life::Lives { .. });
        for source in sources.iter_mut().filter(|source| !source.ended) {
            let over = match now.as_ref().filter(|pod| lives(pod)) {
                None => true,
                Some(pod) => {
                    let status = status(&pod.pod, &source.container);
                    status["restartCount"].as_u64().unwrap_or(0) > source.run
                        || status["state"]["terminated"].is_object()
                        || status["lastState"]["terminated"].is_object()
                            && status["state"]["waiting"].is_object()
                }
            };
            let (mut text, mut inside) = (Vec::new(), source.inside);
            let prefix = source.prefix.clone();
            source
                .segments
                .read(&mut |line| {
                    if let Some(entry) = Entry::parse(line).filter(|entry| view.wants(entry)) {
                        view.show(&entry, &prefix, &mut inside, &mut text);
                    }
                    text.len() < TURN
                })
                .map_err(|error| unreadable(source, &error))?;
            source.inside = inside;
            source.ended = over && text.len() < TURN;
            rest |= text.len() >= TURN;
            if out.write_all(&text).is_err() || out.flush().is_err() {
                return Ok(false);
            }
        }
        if sources.iter().all(|source| source.ended) {
            return Ok(true);
        }
        if !rest && !looks_again {
            changes
                .wait(&now)
                .map_err(|error| Failure::runtime("waiting for changes", error))?;
        }
    }
}

fn unreadable(source: &Source, error: &std::io::Error) -> Failure {
    Failure::runtime(format!("reading the log of {}", source.container), error)
}

impl View<'_> {
    fn wants(&self, entry: &Entry<'_>) -> bool {
        self.from
            .is_none_or(|from| humantime::parse_rfc3339(entry.time).is_ok_and(|time| time >= from))
    }

    fn show(&self, entry: &Entry<'_>, prefix: &str, inside: &mut bool, to: &mut Vec<u8>) {
        if !*inside {
            to.extend_from_slice(prefix.as_bytes());
            if self.params.timestamps {
                to.extend_from_slice(entry.time.as_bytes());
                to.push(b' ');
            }
        }
        to.extend_from_slice(entry.content);
        if !entry.partial {
            to.push(b'\n');
        }
        *inside = entry.partial;
    }
}
