//! Frames of control that come.

use super::frames::*;
use super::take::Taken;
use super::{LEAVING, Leave, MAX_STREAM, MAX_WINDOW, Reason, Session};

impl Session {
    /// Priorities are not followed (RFC 9113 section 5.3.2).
    pub(super) fn priority(&mut self, stream: u32, payload: &[u8]) -> Taken {
        if stream == 0 {
            return Err(Reason::Protocol);
        }
        let Ok(&[a, b, c, d, _]) = <&[u8; 5]>::try_from(payload) else {
            return Err(Reason::FrameSize);
        };
        if u32::from_be_bytes([a, b, c, d]) & MAX_STREAM != stream {
            return Ok(None);
        }
        match self.find(stream) {
            Some(at) => self.fault(at, Reason::Protocol, "a stream depends on itself"),
            None => return Err(Reason::Protocol),
        }
        Ok(None)
    }

    pub(super) fn was_reset(&mut self, stream: u32, payload: &[u8]) -> Taken {
        if payload.len() != 4 {
            return Err(Reason::FrameSize);
        }
        if self.is_idle(stream) {
            return Err(Reason::Protocol);
        }
        if let Some(at) = self.find(stream) {
            let entry = &mut self.streams[at];
            entry.reset_by_client = !entry.reset;
            entry.reset = true;
            entry.wake();
            self.settle(at);
        }
        Ok(None)
    }

    pub(super) fn settings(&mut self, stream: u32, flags: u8, payload: &[u8]) -> Taken {
        if stream != 0 {
            return Err(Reason::Protocol);
        }
        if flags & ACK != 0 {
            if !payload.is_empty() {
                return Err(Reason::FrameSize);
            }
            self.acknowledged();
            return Ok(None);
        }
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Reason::FrameSize);
        }
        let mut window = None;
        for &[a, b, c, d, e, f] in settings {
            let value = u32::from_be_bytes([c, d, e, f]);
            match u16::from_be_bytes([a, b]) {
                HEADER_TABLE_SIZE => {
                    let size = usize::try_from(value).unwrap_or(usize::MAX);
                    self.encoder.resize(size);
                }
                ENABLE_PUSH | ENABLE_CONNECT_PROTOCOL if value > 1 => return Err(Reason::Protocol),
                INITIAL_WINDOW_SIZE if i64::from(value) > MAX_WINDOW => {
                    return Err(Reason::FlowControl);
                }
                // The last counts: to go through the streams for each would be much work for little.
                INITIAL_WINDOW_SIZE => window = Some(i64::from(value)),
                // We send none that are larger than the least that may be said.
                MAX_FRAME_SIZE if !(1 << 14..1 << 24).contains(&value) => {
                    return Err(Reason::Protocol);
                }
                _ => {}
            }
        }
        if let Some(window) = window {
            self.set_window(window)?;
        }
        self.settled = true;
        self.put_frame(SETTINGS, ACK, 0, 0);
        Ok(None)
    }

    /// Open streams' windows change with that of new ones (RFC 9113 section 6.9.2).
    fn set_window(&mut self, window: i64) -> Result<(), Reason> {
        let more = window - self.first_window;
        self.first_window = window;
        for (_, at) in &self.by_id {
            let entry = &mut self.streams[*at];
            entry.window += more;
            if entry.window > MAX_WINDOW {
                return Err(Reason::FlowControl);
            }
            if more > 0 && !entry.queued {
                entry.wake();
            }
        }
        Ok(())
    }

    /// The client knows our settings, and so a window that is smaller than the first (RFC 9113 section 6.9.3).
    fn acknowledged(&mut self) {
        let less = std::mem::take(&mut self.lenience);
        if less > 0 {
            for (_, at) in &self.by_id {
                self.streams[*at].recv_window -= less;
            }
        }
    }

    pub(super) fn ping(&mut self, stream: u32, flags: u8, payload: &[u8]) -> Taken {
        if stream != 0 {
            return Err(Reason::Protocol);
        }
        if payload.len() != LEAVING.len() {
            return Err(Reason::FrameSize);
        }
        if flags & ACK == 0 {
            self.put_frame(PING, ACK, 0, payload.len());
            self.put(payload);
        } else if self.leave == Leave::Asked && payload == LEAVING {
            self.leave = Leave::After(self.last);
            self.put_goaway(self.last, Reason::NoError);
        }
        Ok(None)
    }

    pub(super) fn update(&mut self, stream: u32, payload: &[u8]) -> Taken {
        let payload = <&[u8; 4]>::try_from(payload).map_err(|_| Reason::FrameSize)?;
        let more = i64::from(u32::from_be_bytes(*payload) & MAX_STREAM);
        if stream == 0 {
            self.window += more;
            return match (more, self.window) {
                (0, _) => Err(Reason::Protocol),
                (_, window) if window > MAX_WINDOW => Err(Reason::FlowControl),
                _ => {
                    self.pass_on();
                    Ok(None)
                }
            };
        }
        let Some(at) = self.find(stream) else {
            return match self.is_idle(stream) {
                true => Err(Reason::Protocol),
                false => Ok(None),
            };
        };
        let entry = &mut self.streams[at];
        entry.window += more;
        if more == 0 {
            self.fault(at, Reason::Protocol, "a window is widened by nothing");
        } else if entry.window > MAX_WINDOW {
            self.fault(at, Reason::FlowControl, "a window is too large");
        } else if entry.window > 0 && !entry.queued {
            entry.wake();
        }
        Ok(None)
    }
}
