//! A command of a sidecar: started, heard, ended.

use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;

use super::life::Children;
use super::output::Tail;
use super::wire::{Answer, OUTPUT_MAX, Outcome};

/// How long the output may still come when the command has ended: what it left running may hold the pipe.
const AFTERWARDS: Duration = Duration::from_millis(200);

/// Runs allowed words. None when who asked has gone.
pub(super) async fn run(
    children: &Children,
    words: &[String],
    timeout: Duration,
    asker: &mut UnixStream,
) -> Option<Answer> {
    let (reader, group, mut ended) = match start(children, words) {
        Ok(started) => started,
        Err(error) => {
            let program = words.first().map_or("", String::as_str);
            return Some(Answer::refused(match error.kind() {
                io::ErrorKind::NotFound => {
                    format!("there is no program {program} in the application's container")
                }
                _ => format!("{program} can't be started ({error})"),
            }));
        }
    };
    let mut reader = Some(reader);
    let mut said = Tail::new(OUTPUT_MAX);
    let mut buffer = vec![0; 4096];
    let mut more = [0; 1];
    let deadline = tokio::time::sleep(timeout);
    tokio::pin!(deadline);
    // The outcome when it did not end by itself.
    let cut = loop {
        tokio::select! {
            status = &mut ended => break Ok(status),
            () = &mut deadline => break Err(true),
            // Nothing is to come from who asks but the end.
            _ = asker.read(&mut more) => break Err(false),
            heard = hear(&mut reader, &mut buffer) => said.add(&buffer[..heard]),
        }
    };
    let status = match cut {
        Ok(status) => status,
        Err(timed_out) => {
            // Not reaped yet, so the id is still its own.
            kill_process_group(group, Signal::KILL).ok();
            ended.await.ok();
            if !timed_out {
                return None;
            }
            rest(&mut reader, &mut buffer, &mut said).await;
            let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            return Some(Answer {
                outcome: Outcome::TimedOut(ms),
                output: said.text(),
            });
        }
    };
    rest(&mut reader, &mut buffer, &mut said).await;
    let status = status
        .ok()
        .map(|status| ExitStatus::from_raw(status.as_raw()));
    let outcome = match status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) => Outcome::Exited(code),
        Some((None, Some(signal))) => Outcome::Signalled(signal),
        _ => Outcome::Refused("the agent is stopping".to_owned()),
    };
    Some(Answer {
        outcome,
        output: said.text(),
    })
}

type Started = (
    pipe::Receiver,
    Pid,
    tokio::sync::oneshot::Receiver<rustix::process::WaitStatus>,
);

fn start(children: &Children, words: &[String]) -> io::Result<Started> {
    let (program, args) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let (reader, writer) = io::pipe()?;
    let reader = pipe::Receiver::from_owned_fd(reader.into())?;
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    let (group, ended) = children.start(&mut command)?;
    Ok((reader, group, ended))
}

/// Bytes heard; waits for ever behind the end.
async fn hear(reader: &mut Option<pipe::Receiver>, buffer: &mut [u8]) -> usize {
    if let Some(open) = reader {
        match open.read(buffer).await {
            Ok(count @ 1..) => return count,
            _ => *reader = None,
        }
    }
    std::future::pending().await
}

async fn rest(reader: &mut Option<pipe::Receiver>, buffer: &mut [u8], said: &mut Tail) {
    let all = async {
        while let Some(open) = reader {
            match open.read(buffer).await {
                Ok(count @ 1..) => said.add(&buffer[..count]),
                _ => *reader = None,
            }
        }
    };
    // What came until then is told.
    tokio::time::timeout(AFTERWARDS, all).await.ok();
}
