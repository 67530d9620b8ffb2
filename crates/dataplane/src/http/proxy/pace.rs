//! The deadlines of a body that is being sent, which are not those of the answer.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::exchange::Fail;
use super::pump::{Pump, PumpError};
use crate::http::HttpLimits;
use crate::http::conn::{Conn, Cut};
use crate::net::Transport;
use crate::upstream::{UpstreamLimits, Wire};

/// Keeps them while a body is pumped.
pub(super) struct Pace {
    /// When we began to wait for the client, and what had come until then.
    moved: u64,
    waiting_since: Option<Instant>,
    /// Time that the client took, all pauses together.
    spent: Duration,
    /// What the upstream has to begin its answer, or to take more of the body.
    response_timeout: Duration,
    /// What both sides have once the answer has begun: a stream each way, whose silence means nothing.
    silence: Option<Duration>,
}

impl Pace {
    pub(super) fn new(pump: Option<&Pump>, response_timeout: Duration) -> Self {
        Self {
            response_timeout,
            moved: pump.map_or(0, |pump| pump.moved),
            waiting_since: None,
            spent: Duration::ZERO,
            silence: None,
        }
    }

    /// Of a body that goes on beside the answer (RFC 9112 section 9.5 has nothing against it, gRPC lives by it).
    pub(super) fn beside_answer(pump: Option<&Pump>, limits: &UpstreamLimits) -> Self {
        Self {
            silence: Some(limits.tunnel_timeout),
            ..Self::new(pump, limits.response_timeout)
        }
    }

    /// Moves the body on and arms the deadline for what it waits for. The pump goes when it is done.
    pub(super) fn pump<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn<T>,
        slot: &mut Option<Pump>,
        upstream: &mut Wire,
        limits: &HttpLimits,
    ) -> Result<(), Fail> {
        let Some(pump) = slot else {
            return Ok(());
        };
        match pump.poll(cx, conn, upstream, limits) {
            Poll::Ready(Ok(())) => {
                *slot = None;
                conn.timer.arm_for(self.response_timeout);
                Ok(())
            }
            // The upstream takes no more; what it answers tells why.
            Poll::Ready(Err(PumpError::Upstream)) => {
                pump.give_up();
                conn.timer.arm_for(self.response_timeout);
                Ok(())
            }
            Poll::Ready(Err(PumpError::Client(Cut::Rejected(reject)))) => Err(Fail::Reject(reject)),
            Poll::Ready(Err(PumpError::Client(cut))) => Err(Fail::Client(cut)),
            Poll::Pending => {
                let progress = pump.moved != self.moved;
                if progress || self.waiting_since.is_none() {
                    let now = Instant::now();
                    if let Some(since) = self.waiting_since.replace(now) {
                        self.spent += now.duration_since(since);
                    }
                    self.moved = pump.moved;
                    let patience = match self.silence {
                        Some(silence) => silence,
                        None if pump.is_waiting_for_client() => {
                            limits.body_timeout.min(self.allowance(limits))
                        }
                        None => self.response_timeout,
                    };
                    conn.timer.arm(now + patience);
                }
                Ok(())
            }
        }
    }

    /// How long the next byte may take for the body to keep `--min-body-rate`.
    fn allowance(&self, limits: &HttpLimits) -> Duration {
        match limits.min_body_rate.0 {
            0 => Duration::MAX,
            rate => {
                let earned = limits.body_timeout + Duration::from_secs(self.moved / rate);
                earned.saturating_sub(self.spent)
            }
        }
    }
}
