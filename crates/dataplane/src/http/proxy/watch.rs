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
    Later(Instant),
    Now,
    /// It has closed its side, or sent more: it can still read.
    Over,
}

impl Watch {
    pub(super) fn new<T: Transport>(conn: &Conn<T>, pump: Option<&Pump>) -> Self {
        // A deadline that has passed already must stay so.
        match conn.timer.deadline() {
            Some(due) if pump.is_none() && !conn.io.is_watched() => {
                conn.timer.shorten(SOON);
                Self::Later(due)
            }
            _ => Self::Now,
        }
    }

    /// Begins when it is time to.
    pub(super) fn begin<T: Transport>(&mut self, cx: &Context<'_>, conn: &Conn<T>) {
        if let Self::Later(due) = *self
            && conn.timer.expired(cx)
        {
            conn.timer.arm(due);
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
