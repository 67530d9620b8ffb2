//! `exec:`: a program that exits with 0. It has a process group of its own, which is killed when its time is over, and is always reaped:
//! no zombie, and nothing that goes on behind a probe that failed.

use std::os::unix::process::ExitStatusExt as _;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use regex::bytes::Regex;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use super::{Prober, Probing};
use crate::health::phases::{Phase, Phases};
use crate::health::spec::{Place, Spec};

/// Bytes that are looked at of what it writes, to each of its outputs; more is read and thrown away.
const OUTPUT_BYTES: usize = 64 * 1024;

/// How long what it left running may hold its outputs open once it has exited.
const LEFTOVERS: Duration = Duration::from_millis(100);

pub(super) struct Exec {
    words: Vec<String>,
    output: Option<Regex>,
    /// While it was not reaped.
    running: Option<Child>,
}

impl Exec {
    pub(super) fn new(spec: &Spec) -> Result<Self, String> {
        let Place::Command(words) = &spec.place else {
            return Err("it names no program".to_owned());
        };
        Ok(Self {
            words: words.clone(),
            output: spec
                .option("output")
                .map(|text| super::http::regex("output", text))
                .transpose()?,
            running: None,
        })
    }

    async fn run(&mut self, phases: &Phases) -> Result<String, String> {
        phases.enter(Phase::Query);
        let program = &self.words[0];
        let child = Command::new(program)
            .args(&self.words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|why| format!("{program} can't be started: {why}"))?;
        let child = self.running.insert(child);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let status = {
            let reading = async {
                tokio::join!(read(stdout, &mut out), read(stderr, &mut err));
            };
            tokio::pin!(reading);
            let mut all_read = false;
            let status = loop {
                tokio::select! {
                    status = child.wait() => break status,
                    () = &mut reading, if !all_read => all_read = true,
                }
            };
            if !all_read {
                // What it left running is not waited for.
                tokio::time::timeout(LEFTOVERS, reading).await.ok();
            }
            status.map_err(|why| why.to_string())?
        };
        self.running = None;
        judge(status, &out, &err, self.output.as_ref())
    }

    /// The whole group. Its leader was not reaped: the number is still its own.
    fn kill(&self) {
        let pid = self.running.as_ref().and_then(Child::id);
        let pid = pid.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            // It may be gone already.
            kill_process_group(pid, Signal::KILL).ok();
        }
    }
}

impl Prober for Exec {
    fn probe<'a>(&'a mut self, phases: &'a Phases) -> Probing<'a> {
        Box::pin(self.run(phases))
    }

    fn give_up(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async {
            self.kill();
            if let Some(mut child) = self.running.take() {
                // What can't be waited for is no more.
                child.wait().await.ok();
            }
        })
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        // tokio reaps it.
        self.kill();
    }
}

async fn read(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    let Some(mut from) = from else {
        return;
    };
    let mut part = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut part).await {
        let room = OUTPUT_BYTES - into.len();
        into.extend_from_slice(&part[..count.min(room)]);
    }
}

fn judge(
    status: ExitStatus,
    out: &[u8],
    err: &[u8],
    wanted: Option<&Regex>,
) -> Result<String, String> {
    let last = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let line = text.trim_end().lines().last().unwrap_or_default();
        line.trim().to_owned()
    };
    let shown = match (last(err), last(out)) {
        (err, out) if err.is_empty() => out,
        (err, _) => err,
    };
    let with = |text: String| match shown.is_empty() {
        true => text,
        false => format!("{text}: {shown}"),
    };
    match (status.code(), status.signal()) {
        (Some(0), _) => {}
        (Some(code), _) => return Err(with(format!("exits with {code}"))),
        (None, signal) => {
            let signal = signal.unwrap_or_default();
            return Err(with(format!("was killed by signal {signal}")));
        }
    }
    match wanted {
        Some(wanted) if !wanted.is_match(out) => {
            Err(with(format!("writes what does not match {wanted}")))
        }
        _ => Ok(with("exits with 0".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podkit_foundation::params::ParamType as _;

    fn shell(script: &str, output: Option<&str>) -> Exec {
        Exec {
            words: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            output: output.map(|text| Regex::new(text).unwrap()),
            running: None,
        }
    }

    #[tokio::test]
    async fn exits_and_outputs_are_judged() {
        let check = async |script: &str, output, expected: Result<&str, &str>| {
            let found = shell(script, output).probe(&Phases::default()).await;
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(found, expected, "{script}");
        };
        check("true", None, Ok("exits with 0")).await;
        check("echo a; echo b", None, Ok("exits with 0: b")).await;
        check("echo a; echo b >&2; exit 3", None, Err("exits with 3: b")).await;
        check("kill -9 $$", None, Err("was killed by signal 9")).await;
        check(
            "echo lag 3",
            Some("^lag [0-4]$"),
            Err("writes what does not match ^lag [0-4]$: lag 3"),
        )
        .await;
        check("echo lag 3", Some("^lag [0-4]"), Ok("exits with 0: lag 3")).await;
        // It writes more than is kept, and a child of it holds the output open.
        check(
            "sleep 60 & head -c 1000000 /dev/zero | tr '\\0' x; echo; echo z >&2",
            None,
            Ok("exits with 0: z"),
        )
        .await;
        let spec = Spec::parse("a=exec:/no/such").unwrap();
        let found = Exec::new(&spec).unwrap().probe(&Phases::default()).await;
        assert!(found.unwrap_err().contains("/no/such can't be started"));
    }

    #[tokio::test]
    async fn a_group_that_is_given_up_is_gone() {
        let mut exec = shell("sleep 1000 & sleep 1000", None);
        let phases = Phases::default();
        let given_up = tokio::time::timeout(Duration::from_millis(100), exec.probe(&phases)).await;
        assert!(given_up.is_err());
        let id = exec.running.as_ref().unwrap().id().unwrap();
        let group = Pid::from_raw(id.cast_signed()).unwrap();
        rustix::process::test_kill_process_group(group).unwrap();
        exec.give_up().await;
        assert!(exec.running.is_none());
        // Its child is init's to reap.
        let gone = async {
            while rustix::process::test_kill_process_group(group).is_ok() && !only_zombies(id) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone)
            .await
            .unwrap();
    }

    /// Nothing of the group runs.
    fn only_zombies(group: u32) -> bool {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let stats =
            entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
        stats
            .filter_map(|stat| {
                let rest = stat.rsplit_once(") ")?.1.to_owned();
                let mut words = rest.split(' ');
                let (state, _, of) = (words.next()?.to_owned(), words.next()?, words.next()?);
                Some((state, of.parse::<u32>().ok()?))
            })
            .all(|(state, of)| of != group || state == "Z")
    }
}
