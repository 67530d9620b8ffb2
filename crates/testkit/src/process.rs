//! A process that a test started: its lines are kept, its end is waited for, and it never outlives the test.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};

use crate::DEADLINE;

/// Where a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A line with where and when it came (since the process was started).
#[derive(Debug, Clone)]
pub struct Line {
    /// Where.
    pub stream: Stream,
    /// When it was read, since the start.
    pub at: Duration,
    /// What, without its end.
    pub text: String,
}

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Vec<Line>>,
    more: Condvar,
    /// Pipes that were read to their end.
    ended: AtomicUsize,
}

/// A started process. Dropping it kills it (SIGKILL, by its own id) and waits for its end.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    handle: OwnedFd,
    started: Instant,
    log: Arc<Log>,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with both outputs kept. Panics when it can't be started.
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        let started = Instant::now();
        command.stdin(Stdio::null());
        let mut child = start(name, command);
        let pid = Pid::from_child(&child);
        let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .unwrap_or_else(|error| panic!("{name}: pidfd_open: {error}"));
        let log = Arc::new(Log::default());
        let (out, err) = (child.stdout.take(), child.stderr.take());
        keep(
            out.expect("a pipe was asked for"),
            Stream::Out,
            started,
            &log,
        );
        keep(
            err.expect("a pipe was asked for"),
            Stream::Err,
            started,
            &log,
        );
        Self {
            name: name.to_owned(),
            child,
            handle,
            started,
            log,
            ended: None,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.log
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// All lines of one stream so far, joined.
    pub fn text(&self, stream: Stream) -> String {
        let lines = self.lines();
        let texts: Vec<&str> = lines
            .iter()
            .filter(|line| line.stream == stream)
            .map(|line| line.text.as_str())
            .collect();
        texts.join("\n")
    }

    /// Waits for a line that `wanted` accepts, looking at those that came before too, and gives it. Panics with
    /// everything the process wrote when it ends, or the deadline passes, without one.
    pub fn wait_line(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Line {
        self.wait_line_after(0, what, wanted).1
    }

    /// The same for the lines from number `from` on; gives the number of the line too.
    pub fn wait_line_after(
        &self,
        from: usize,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> (usize, Line) {
        let deadline = Instant::now() + DEADLINE;
        let mut seen = from;
        let mut lines = self
            .log
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            while seen < lines.len() {
                if wanted(&lines[seen].text) {
                    return (seen, lines[seen].clone());
                }
                seen += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            // The pipe's end is not an event of its own here: a look every 50 ms finds an early end.
            let gone = self.has_ended();
            let waited = self
                .log
                .more
                .wait_timeout(lines, left.min(Duration::from_millis(50)));
            lines = waited.unwrap_or_else(PoisonError::into_inner).0;
            if lines.len() == seen && (left.is_zero() || gone) {
                drop(lines);
                let why = if gone { "it ended" } else { "too late" };
                panic!("{}: waiting for {what}: {why}\n{}", self.name, self.shown());
            }
        }
    }

    /// Sends a signal to it and to nothing else.
    pub fn signal(&self, signal: Signal) {
        rustix::process::pidfd_send_signal(&self.handle, signal)
            .unwrap_or_else(|error| panic!("{}: {signal:?}: {error}", self.name));
    }

    /// Whether it has ended (it may still be a zombie).
    pub fn has_ended(&self) -> bool {
        self.ends_within(Duration::ZERO)
    }

    /// Whether it ends within this time: returns when it does, and at the latest then.
    pub fn ends_within(&self, longest: Duration) -> bool {
        self.ended.is_some() || self.poll_end(longest)
    }

    /// Waits for its end. Panics with everything it wrote when the deadline passes first.
    pub fn wait(&mut self) -> ExitStatus {
        self.wait_for(DEADLINE)
    }

    /// Waits for its end, `longest` at most.
    pub fn wait_for(&mut self, longest: Duration) -> ExitStatus {
        if let Some(status) = self.ended {
            return status;
        }
        assert!(
            self.poll_end(longest),
            "{}: still runs after {longest:?}\n{}",
            self.name,
            self.shown()
        );
        let status = self.child.wait().expect("the child is ours to wait for");
        waited_for(self.pid());
        self.ended = Some(status);
        self.settle();
        status
    }

    /// Asks it to end (SIGTERM) and gives its exit code; panics when a signal ended it.
    pub fn stop(&mut self) -> i32 {
        if !self.has_ended() {
            self.signal(Signal::TERM);
        }
        let status = self.wait();
        status
            .code()
            .unwrap_or_else(|| panic!("{}: ended by {status}\n{}", self.name, self.shown()))
    }

    /// What it wrote, for the message of a test that fails.
    pub fn shown(&self) -> String {
        let lines = self.lines();
        let from = lines.len().saturating_sub(200);
        let mut text = format!("--- what {} wrote:\n", self.name);
        for line in &lines[from..] {
            let mark = if line.stream == Stream::Out {
                "out"
            } else {
                "err"
            };
            text += &format!("{:8.3} {mark} {}\n", line.at.as_secs_f64(), line.text);
        }
        text
    }

    fn poll_end(&self, longest: Duration) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&self.handle, PollFlags::IN)];
        let timeout = Timespec {
            tv_sec: i64::try_from(longest.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(longest.subsec_nanos()),
        };
        loop {
            match poll(&mut fds, Some(&timeout)) {
                Ok(count) => return count > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("poll: {error}"),
            }
        }
    }

    /// Gives the readers the time to take what is still in the pipes: to their end, or, where what the process left behind holds
    /// them open, until nothing new came for a moment.
    fn settle(&self) {
        const PIPES: usize = 2;
        let patience = Instant::now() + Duration::from_secs(2);
        while self.log.ended.load(Ordering::Acquire) < PIPES {
            if Instant::now() > patience {
                return self.settle_by_silence();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn settle_by_silence(&self) {
        let mut before = usize::MAX;
        loop {
            let now = self.lines().len();
            if now == before {
                return;
            }
            before = now;
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // Fails only when it has ended by itself.
            let _gone = rustix::process::pidfd_send_signal(&self.handle, Signal::KILL).is_err();
            drop(self.child.wait());
            waited_for(self.pid());
        }
    }
}

/// The children that someone here waits for. All others were adopted.
static OURS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn ours() -> MutexGuard<'static, BTreeSet<u32>> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(name: &str, command: &mut Command) -> Child {
    let mut ours = ours();
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{name}: can't be started: {error}"));
    ours.insert(child.id());
    child
}

fn waited_for(pid: u32) {
    ours().remove(&pid);
}

/// Waits, as init would, for those of these children that were adopted and have ended. Until someone does, the PID namespace
/// that they were in stays.
pub fn reap_adopted(children: &[u32]) {
    let ours = ours();
    for child in children.iter().filter(|child| !ours.contains(child)) {
        let pid = i32::try_from(*child).ok().and_then(Pid::from_raw);
        // Fails for those that are not our children, or not any more.
        let _status = pid.map(|pid| rustix::process::waitpid(Some(pid), WaitOptions::NOHANG));
    }
}

fn keep(pipe: impl Read + Send + 'static, stream: Stream, started: Instant, log: &Arc<Log>) {
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            let line = Line {
                stream,
                at: started.elapsed(),
                text,
            };
            log.lines
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(line);
            log.more.notify_all();
        }
        log.ended.fetch_add(1, Ordering::Release);
    });
}

/// Runs a command to its end and gives its exit code and what it wrote to each stream.
pub fn run(name: &str, command: &mut Command) -> Finished {
    let child = start(name, command.stdin(Stdio::null()));
    let pid = child.id();
    let output = child.wait_with_output();
    waited_for(pid);
    let output = output.unwrap_or_else(|error| panic!("{name}: {error}"));
    Finished {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A command that ran to its end.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Finished {
    /// Its standard output; panics with its standard error unless it exited with 0.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        Process::spawn("sh", Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn lines_come_with_their_stream_and_the_end_with_its_code() {
        let mut process = shell("echo one; echo two >&2; read x <&-; exit 3");
        assert_eq!(
            process.wait_line("two", |line| line == "two").stream,
            Stream::Err
        );
        assert_eq!(process.wait().code(), Some(3));
        assert_eq!(process.text(Stream::Out), "one");
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let process = shell("echo up; exec sleep 1000");
        process.wait_line("up", |line| line == "up");
        let pid = process.pid();
        drop(process);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    #[should_panic(expected = "it ended")]
    fn waiting_for_a_line_of_a_process_that_ended_fails_at_once() {
        shell("echo only").wait_line("another", |line| line == "another");
    }
}
