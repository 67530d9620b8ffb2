//! How a connection to a server waits for what comes.

use std::future::Future as _;
use std::pin::{Pin, pin};
use std::task::Context;
use std::time::Duration;

use tokio::time::Instant;

/// How long a lane waits.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// How long nothing may come while something is waited for.
    pub patience: Duration,
    /// How long a lane that has moved something looks for more before its worker may sleep.
    pub busy_poll: Duration,
}

/// How long nothing has come though something is waited for. One sleep serves many waits: it is set anew only when it ends too early.
pub(crate) struct Silence {
    patience: Duration,
    /// None while nothing is waited for.
    since: Option<Instant>,
    sleep: Pin<Box<tokio::time::Sleep>>,
}

impl Silence {
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            patience,
            since: None,
            sleep: Box::pin(tokio::time::sleep(patience)),
        }
    }

    /// Since when nothing has come though something is waited for, as it was when `is_over` was asked.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.since
    }

    pub(crate) fn is_over(&mut self, cx: &mut Context<'_>, waits: bool, heard: bool) -> bool {
        if !waits {
            self.since = None;
            return false;
        }
        if heard || self.since.is_none() {
            self.since = Some(Instant::now());
        }
        while self.sleep.as_mut().poll(cx).is_ready() {
            let until = self
                .since
                .map_or_else(Instant::now, |since| since + self.patience);
            if until <= Instant::now() {
                return true;
            }
            self.sleep.as_mut().reset(until);
        }
        false
    }
}

/// Keeps the worker from sleeping for a while after something was moved: a core that sleeps wakes slowly.
pub(crate) struct Busy {
    span: Duration,
    until: Instant,
    sent: u64,
}

impl Busy {
    pub(crate) fn new(span: Duration) -> Self {
        Self {
            span,
            until: Instant::now(),
            sent: 0,
        }
    }

    /// Has the task of `cx` woken again after the sockets were looked at, if it is not time to sleep yet. `sent`: bytes so far.
    pub(crate) fn look_again(&mut self, cx: &mut Context<'_>, sent: u64, heard: bool) {
        if self.span.is_zero() {
            return;
        }
        let now = Instant::now();
        if heard || sent != self.sent {
            (self.until, self.sent) = (now + self.span, sent);
        }
        if now < self.until {
            // Never ready at once: it has the runtime wake this task.
            let yielded = pin!(tokio::task::yield_now());
            let pending = yielded.poll(cx).is_pending();
            debug_assert!(pending, "it yields once");
        }
    }
}
