//! HAProxy's agent-check: one line to whoever connects (HAProxy, configuration manual, "agent-check").
//!
//! `drain` stays in force at HAProxy until it hears `ready`, which also ends what its own operators have set: so that is said only for a
//! while after a drain has ended, which is longer than checks are apart.

use std::future::poll_fn;
use std::io::IoSlice;
use std::rc::Rc;
use std::time::Duration;

use podkit_dataplane::net::{Accepted, Buf, Serve, Transport as _};
use tokio::time::{Instant, timeout};

use super::board::{Board, Endpoint};
use super::check::State;
use super::runner::Shared;

/// How long `ready` is said after a drain.
const READY: Duration = Duration::from_secs(300);

/// How long who asks may take to go.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of a reason at most: HAProxy has room for little.
const REASON_BYTES: usize = 80;

/// Answers connections.
pub(crate) struct Agent {
    pub(crate) shared: Shared,
    /// Percent, of who is degraded.
    pub(crate) degraded: u16,
}

impl Serve for Agent {
    async fn serve(self: Rc<Self>, mut accepted: Accepted) {
        let line = line(&self.shared.board(), self.degraded, Instant::now());
        let socket = &mut accepted.socket;
        let talk = async {
            let mut sent = 0;
            while sent < line.len() {
                let part = [IoSlice::new(&line.as_bytes()[sent..])];
                sent += poll_fn(|cx| socket.poll_write(cx, &part)).await?;
            }
            poll_fn(|cx| socket.poll_close_write(cx)).await?;
            // What it says (agent-send) is read to its end: else it would be told of a reset before it has read the line.
            let mut input = Buf::small();
            while poll_fn(|cx| socket.poll_read(cx, &mut input)).await? > 0 {
                input.clear();
            }
            std::io::Result::Ok(())
        };
        // Whoever is gone does not want to know.
        timeout(PATIENCE, talk).await.ok();
    }
}

/// What HAProxy is told.
fn line(board: &Board, degraded: u16, now: Instant) -> String {
    let Some(verdict) = board.verdict(Endpoint::Ready, None, now) else {
        return "down\n".to_owned();
    };
    if verdict.drained.is_some() || verdict.stopping {
        return "drain\n".to_owned();
    }
    let ready = match board.undrained(now) {
        Some(since) if since < READY => "ready ",
        _ => "",
    };
    match (verdict.passes, verdict.state) {
        (true, State::Degraded) => format!("{ready}up {degraded}%\n"),
        (true, _) => format!("{ready}up 100%\n"),
        (false, _) => {
            let worst = verdict.lines.iter().find(|line| !line.passes);
            let reason = worst.map(|line| format!("{}: {}", line.name, line.why));
            format!("{ready}down #{}\n", plain(&reason.unwrap_or_default()))
        }
    }
}

/// A line of printable ASCII.
fn plain(text: &str) -> String {
    let right = |part: char| {
        if (' '..='~').contains(&part) {
            part
        } else {
            '?'
        }
    };
    text.chars().take(REASON_BYTES).map(right).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::board::Entry;
    use crate::health::check::{Outcome, Rules};
    use crate::health::latency::Budget;
    use crate::health::phases::Times;
    use crate::health::spec::CountsFor;

    #[test]
    fn states_are_words_and_weights() {
        let rules = Rules {
            period: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            failure: 1,
            success: 1,
            budget: Budget {
                p50: Some(Duration::from_millis(10)),
                p99: None,
                window: Duration::from_secs(60),
            },
            history: 1,
        };
        let counts_for = CountsFor {
            live: false,
            ready: true,
            startup: false,
        };
        let mut board = Board::default();
        board.put("a", Entry::new(String::new(), counts_for, false, rules));
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let record = |board: &mut Board, at, said: Result<(), &str>, millis| {
            let outcome = Outcome {
                said: said.map(|()| String::new()).map_err(str::to_owned),
                took: Duration::from_millis(millis),
                times: Times::default(),
            };
            board.record("a", at, outcome);
        };
        assert_eq!(line(&board, 50, now), "down #a: has no result yet\n");
        record(&mut board, now, Ok(()), 1);
        assert_eq!(line(&board, 50, now), "up 100%\n");
        for _ in 0..9 {
            record(&mut board, now, Ok(()), 20);
        }
        assert_eq!(line(&board, 50, now), "up 50%\n");
        board.drain(true, now);
        assert_eq!(line(&board, 50, now), "drain\n");
        board.drain(false, now);
        assert_eq!(line(&board, 50, at(9)), "ready up 50%\n");
        record(&mut board, at(9), Err("né\n"), 1);
        assert_eq!(line(&board, 50, at(9)), "ready down #a: n??\n");
        record(&mut board, at(299), Ok(()), 1);
        assert_eq!(line(&board, 50, at(300)), "up 50%\n");
        board.stop();
        assert_eq!(line(&board, 50, at(300)), "drain\n");
    }
}
