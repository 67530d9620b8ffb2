//! Frames that cost us work and carry nothing, counted as they come in (no I/O).
//!
//! The session bounds memory: streams, header lists, CONTINUATION frames (CVE-2024-27316). What it answers at once costs no
//! memory, and so can come without end: PING, SETTINGS, PRIORITY, empty DATA, and RST_STREAM for requests that went to an
//! upstream (CVE-2023-44487). So the frame headers are followed here, beside it, and each such frame is taken from a budget that
//! time refills; and so is each stream that a client makes us reset. WINDOW_UPDATE is earned by what we send.

use std::time::Duration;

use tokio::time::Instant;

const FRAME_HEADER_BYTES: usize = 9;

/// The client's connection preface (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// END_STREAM of DATA, ACK of SETTINGS and PING.
const FLAG: u8 = 1;

/// Bytes sent that earn a WINDOW_UPDATE; the smallest receivers update after a few KiB, once for stream and connection each.
const SENT_PER_UPDATE: u64 = 512;

/// Follows the frames of one connection.
#[derive(Debug)]
pub(super) struct Flood {
    /// Bytes until the next frame header.
    skip: usize,
    header: [u8; FRAME_HEADER_BYTES],
    have: usize,
    /// Frames of control that may still come.
    budget: u64,
    burst: u64,
    refill: Duration,
    refilled: Instant,
    /// Bytes sent that no WINDOW_UPDATE was counted against.
    sent: u64,
}

impl Flood {
    /// `skip`: the bytes of the preface. `burst` frames may come at once; one more is allowed each `refill`.
    pub(super) fn new(skip: usize, burst: u64, refill: Duration, now: Instant) -> Self {
        Self {
            skip,
            header: [0; FRAME_HEADER_BYTES],
            have: 0,
            budget: burst,
            burst,
            refill,
            refilled: now,
            sent: 0,
        }
    }

    /// Counts bytes that went to the peer.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes as u64);
    }

    /// Looks at bytes that came. False when the budget is overdrawn. `now` is asked only then.
    pub(super) fn take(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> bool {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let count = self.skip.min(bytes.len());
                self.skip -= count;
                bytes = &bytes[count..];
                continue;
            }
            let count = (FRAME_HEADER_BYTES - self.have).min(bytes.len());
            self.header[self.have..self.have + count].copy_from_slice(&bytes[..count]);
            self.have += count;
            bytes = &bytes[count..];
            if self.have < FRAME_HEADER_BYTES {
                return true;
            }
            self.have = 0;
            let [a, b, c, kind, flags, ..] = self.header;
            self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if self.is_idle(kind, flags) && !self.pay(&now) {
                return false;
            }
        }
        true
    }

    /// Counts streams that the peer made us break off by what it did (CVE-2025-8671). False when the budget is overdrawn.
    pub(super) fn faults(&mut self, count: usize, now: impl Fn() -> Instant) -> bool {
        (0..count).all(|_| self.pay(&now))
    }

    fn is_idle(&mut self, kind: u8, flags: u8) -> bool {
        match kind {
            DATA => self.skip == 0 && flags & FLAG == 0,
            PRIORITY | RST_STREAM => true,
            SETTINGS | PING => flags & FLAG == 0,
            WINDOW_UPDATE => match self.sent.checked_sub(SENT_PER_UPDATE) {
                Some(left) => {
                    self.sent = left;
                    false
                }
                None => true,
            },
            CONTINUATION => self.skip == 0,
            // Unknown frames are skipped (RFC 9113 section 5.5), not free.
            _ => kind > CONTINUATION,
        }
    }

    fn pay(&mut self, now: &impl Fn() -> Instant) -> bool {
        if self.budget == 0 {
            let now = now();
            let passed = now.duration_since(self.refilled);
            let earned = passed.as_nanos() / self.refill.as_nanos().max(1);
            self.budget = u64::try_from(earned).unwrap_or(u64::MAX).min(self.burst);
            self.refilled = now;
        }
        match self.budget.checked_sub(1) {
            Some(left) => {
                self.budget = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests;
