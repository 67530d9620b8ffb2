//! What a shared connection is made of, whatever is spoken on it: the commands on their way to the server, the bytes that come back, and the
//! rest between two dials.

use std::future::poll_fn;
use std::io::IoSlice;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::net::{Buf, Transport, took};
use crate::upstream::Wire;

/// Bytes that wait to be sent before clients have to wait with theirs.
const MOST_BYTES: usize = 4 << 20;
/// Commands without a reply before clients have to wait with theirs.
const MOST_WAITING: usize = 64 * 1024;
/// Room that is kept when all was sent.
const KEPT_BYTES: usize = 256 * 1024;
/// After a dial that failed nothing is dialled for so long; then twice as long, up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// After so long the fastest command counts for a part more.
const AGES: Duration = Duration::from_secs(1);

/// Commands on their way. A place in their stream is a number that goes on over connections.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// Of which the first `written` bytes were sent.
    out: Vec<u8>,
    written: usize,
    /// Bytes before `out`.
    before: u64,
    trip: Trip,
}

/// How long commands are under way. One at a time is looked at.
#[derive(Debug, Default)]
struct Trip {
    /// Where it begins, and when it was sent.
    now: Option<(u64, Instant)>,
    /// The fastest. It is forgotten slowly: servers become slower, and busy ones are never as fast.
    least: Option<Duration>,
    aged: Option<Instant>,
}

impl Trip {
    /// How long the one that began then took, and the fastest of late.
    fn ended(&mut self, began: Instant, now: Instant) -> (Duration, Duration) {
        let trip = now - began;
        let mut least = self.least.unwrap_or(trip);
        let aged = self.aged.get_or_insert(now);
        if now - *aged >= AGES {
            (*aged, least) = (now, least + least / 32);
        }
        least = least.min(trip);
        self.least = Some(least);
        (trip, least)
    }
}

impl Outgoing {
    /// Bytes that were not sent yet.
    #[inline]
    pub(crate) fn unsent(&self) -> usize {
        self.out.len() - self.written
    }

    /// Where the next command begins.
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.before + self.out.len() as u64
    }

    /// What begins before this was sent, at least in part.
    pub(crate) fn sent(&self) -> u64 {
        self.before + self.written as u64
    }

    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// With so many commands that wait for a reply, no more may be added.
    pub(crate) fn is_full(&self, waiting: usize) -> bool {
        self.unsent() >= MOST_BYTES || waiting >= MOST_WAITING
    }

    /// Those who waited for room may go on.
    pub(crate) fn has_room_again(&self, waiting: usize) -> bool {
        self.unsent() < MOST_BYTES / 2 && waiting < MOST_WAITING / 2
    }

    /// Sends what it can. The error ends the connection.
    pub(crate) fn write(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Result<(), String> {
        if self.unsent() > 0 && self.trip.now.is_none() {
            self.trip.now = Some((self.sent(), Instant::now()));
        }
        while self.written < self.out.len() {
            match wire.poll_write(cx, &[IoSlice::new(&self.out[self.written..])]) {
                Poll::Ready(Ok(0)) => return Err("it takes no more bytes".to_owned()),
                Poll::Ready(Ok(count)) => self.written += count,
                Poll::Ready(Err(error)) => return Err(error.to_string()),
                Poll::Pending => break,
            }
        }
        if self.written > 0 && self.unsent() == 0 {
            self.clear();
            if self.out.capacity() > KEPT_BYTES {
                self.out.shrink_to(KEPT_BYTES);
            }
            if let Poll::Ready(Err(error)) = wire.poll_flush(cx) {
                return Err(error.to_string());
            }
        }
        Ok(())
    }

    /// All before `place` was answered.
    pub(crate) fn answered(&mut self, place: u64) {
        if let Some((_, began)) = self.trip.now.take_if(|(start, _)| *start < place) {
            let (trip, least) = self.trip.ended(began, Instant::now());
            took(trip, least);
        }
    }

    /// The next connection begins with the command at `place`.
    pub(crate) fn restart(&mut self, place: u64) {
        let skip = usize::try_from(place - self.before).unwrap_or(self.out.len());
        self.out.drain(..skip);
        (self.before, self.written) = (place, 0);
        self.trip = Trip::default();
    }

    /// Nothing of it is to be sent any more.
    pub(crate) fn clear(&mut self) {
        (self.before, self.written) = (self.end(), 0);
        self.out.clear();
    }
}

/// The rest between dials that fail.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    /// Until when, and why.
    failed: Option<(Instant, String)>,
    pause: Duration,
}

impl Rest {
    /// Why nothing is dialled now.
    #[inline]
    pub(crate) fn why(&self) -> Option<&str> {
        let (until, why) = self.failed.as_ref()?;
        (Instant::now() < *until).then_some(why)
    }

    /// The next one may be dialled: it has been asked for.
    pub(crate) fn end(&mut self) {
        self.failed = None;
    }

    /// The last dial failed, and no other was asked for since.
    pub(crate) fn is_begun(&self) -> bool {
        self.failed.is_some()
    }

    /// A dial succeeded.
    pub(crate) fn forget(&mut self) {
        self.pause = Duration::ZERO;
    }

    /// A dial failed; the first of several is logged. Returns the line that commands are answered with.
    pub(crate) fn begin(&mut self, name: &str, why: &str) -> String {
        let why = format!("{name} can't be reached: {why}");
        self.pause = (self.pause * 2).clamp(PAUSE.0, PAUSE.1);
        if self.failed.is_none() && self.pause == PAUSE.0 {
            tracing::warn!("{why}");
        }
        self.failed = Some((Instant::now() + self.pause, why.clone()));
        why
    }
}

/// Reads what there is, and has it handed out. True when there was something; the error ends the connection.
pub(crate) fn read(
    wire: &mut Wire,
    input: &mut Option<Buf>,
    cx: &mut Context<'_>,
    mut hand_out: impl FnMut(&mut Buf) -> Result<(), String>,
) -> Result<bool, String> {
    let mut some = false;
    loop {
        match wire.poll_readable(cx) {
            Poll::Pending => return Ok(some),
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Err(error.to_string()),
        }
        let buf = input.get_or_insert_with(Buf::large);
        buf.reserve(1);
        let read = wire.poll_read(cx, buf);
        match read {
            Poll::Pending => {}
            Poll::Ready(Ok(0)) => return Err("it closed the connection".to_owned()),
            Poll::Ready(Ok(_)) => {
                some = true;
                hand_out(buf)?;
            }
            Poll::Ready(Err(error)) => return Err(error.to_string()),
        }
        if buf.is_empty() {
            *input = None;
        }
        if read.is_pending() {
            return Ok(some);
        }
    }
}

/// Sends a command and waits until `find` has found its reply, on a connection that nothing else is on. The error is one line.
pub(crate) async fn exchange(
    wire: &mut Wire,
    command: &[u8],
    patience: Duration,
    mut find: impl FnMut(&mut Buf) -> Result<Option<Vec<u8>>, String>,
) -> Result<Vec<u8>, String> {
    let say = |error: std::io::Error| error.to_string();
    let exchange = async {
        let mut sent = 0;
        while sent < command.len() {
            let part = [IoSlice::new(&command[sent..])];
            let written = poll_fn(|cx| wire.poll_write(cx, &part)).await;
            sent += written.map_err(say)?;
        }
        poll_fn(|cx| wire.poll_flush(cx)).await.map_err(say)?;
        let mut buf = Buf::small();
        loop {
            buf.reserve(1);
            let count = poll_fn(|cx| wire.poll_read(cx, &mut buf)).await;
            if count.map_err(say)? == 0 {
                return Err("it closed the connection".to_owned());
            }
            if let Some(reply) = find(&mut buf)? {
                return Ok(reply);
            }
        }
    };
    let exchanged = tokio::time::timeout(patience, exchange).await;
    exchanged.unwrap_or_else(|_| Err(format!("no reply for {} ms", patience.as_millis())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_is_forgotten_slowly() {
        let (mut trip, start, ms) = (Trip::default(), Instant::now(), Duration::from_millis(1));
        let mut took = |at: u32, long: u32| trip.ended(start + at * ms, start + (at + long) * ms);
        assert_eq!(took(0, 100), (100 * ms, 100 * ms));
        assert_eq!(took(100, 64), (64 * ms, 64 * ms));
        assert_eq!(took(200, 100), (100 * ms, 64 * ms));
        assert_eq!(took(1200, 100), (100 * ms, 66 * ms));
        assert_eq!(took(1300, 65), (65 * ms, 65 * ms));
    }
}
