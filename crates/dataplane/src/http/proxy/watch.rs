//! A client that may go away while its request waits for the upstream.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::exchange::Fail;
use super::pump::Pump;
use crate::http::conn::Conn;
use crate::net::Transport;

/// Most answers take less: a connection that isn't watched yet, which may end with this answer, need not be until then.
const SOON: Duration = Duration::from_millis(50);

/// Whether it is looked at.
pub(super) enum Watch {
    /// From the end of a while on; and the deadline to which that gives way.
    Later(Option<Instant>),
    Now,
    /// It has closed its side, or sent more: it can still read.
    Over,
}

impl Watch {
    pub(super) fn new<T: Transport>(conn: &Conn<T>, pump: Option<&Pump>) -> Self {
        if pump.is_some() || conn.io.is_watched() {
            return Self::Now;
        }
        let due = conn.timer.deadline();
        conn.timer.shorten(SOON);
        Self::Later(due)
    }

    /// Begins when it is time to.
    pub(super) fn begin<T: Transport>(&mut self, cx: &Context<'_>, conn: &Conn<T>) {
        if let Self::Later(due) = *self
            && conn.timer.expired(cx)
        {
            match due {
                Some(due) => conn.timer.arm(due),
                None => conn.timer.disarm(),
            }
            *self = Self::Now;
        }
    }

    /// A client that has reset its connection is gone.
    pub(super) fn look<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn<T>,
    ) -> Result<(), Fail> {
        if !matches!(self, Self::Now) {
            return Ok(());
        }
        match conn.poll_fill(cx, 0) {
            Poll::Ready(Ok(_)) => *self = Self::Over,
            Poll::Ready(Err(error)) => return Err(Fail::Client(error.into())),
            Poll::Pending => {}
        }
        Ok(())
    }
}
