//! A TLS connection, of a server or of a client, as a [`Transport`].
//!
//! ```text
//!  handshake: rustls (unbuffered) ── secrets ──▶ record: AES-GCM, ChaCha20-Poly1305 by aws-lc
//!                    │                               ▲
//!                    ╰──── key updates ──────────────╯
//!  read:  socket ─▶ input ══open══▶ the caller's buffer
//!  write: the caller's parts ══seal══▶ output ─▶ socket          one system call for several records
//! ```
//!
//! rustls does the handshake, everything about certificates and tickets, and the key schedule. The records of an open
//! connection are protected here, with the same primitives: sealing goes from the bytes that were read from the upstream
//! into what is sent, opening from what was received into the connection's buffer, so that encryption is the only time that
//! bytes are moved, nothing is allocated, and an idle connection holds two keys and no buffer. What was rejected: rustls' own
//! record layer (an allocation and a copy per record each way; the unbuffered one copies twice), kernel TLS (needs a module
//! that container hosts often don't have).

mod handshake;
mod keys;
mod record;

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

pub use handshake::{Handshake, Side};
pub use keys::Keys;
use record::{Alert, Content, MAX_PLAIN_BYTES, Opened, Protection};

use crate::net::{Buf, Socket, Transport};

/// Records of another kind than data that may come in a row: more only keep us busy.
const MAX_IDLE_RECORDS: u32 = 32;

/// Bytes of a handshake message at most: a server's ticket is far below.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// A record that is longer makes the next read a large one.
const BUSY_RECORD_BYTES: usize = 4 * 1024;

/// An open TLS connection over a socket.
pub struct TlsStream {
    socket: Socket,
    /// What the peer sent, to be opened.
    input: Option<Buf>,
    /// What is sealed and not sent yet.
    output: Option<Buf>,
    /// Data that came with the end of the handshake.
    early: Option<Buf>,
    // Boxed, since a task keeps room for a stream wherever one is passed on.
    receive: Box<Protection>,
    send: Box<Protection>,
    /// Makes the keys of an update.
    keys: Box<Keys>,
    /// A handshake message of which more must come.
    message: Vec<u8>,
    /// The last read filled its buffer, or a record is large.
    busy: bool,
    idle_records: u32,
    peer_closed: bool,
    said_close: bool,
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

impl TlsStream {
    /// Opens records from the input into `into`: all that are there, as long as there is room. Returns the bytes of data.
    fn open_records(&mut self, into: &mut Buf) -> io::Result<usize> {
        let mut count = 0;
        loop {
            let opened = match self.open_next(into, count == 0) {
                Ok(Some(opened)) => opened,
                Ok(None) => return Ok(count),
                Err(alert) => return Err(self.fail(alert)),
            };
            if opened.content == Content::Data && opened.len > 0 {
                into.added(opened.len);
                count += opened.len;
                self.idle_records = 0;
                continue;
            }
            if opened.content == Content::Handshake {
                self.message.extend_from_slice(&into.spare()[..opened.len]);
                self.take_messages()?;
            }
            let message = &into.spare()[..opened.len];
            match opened.content {
                Content::Data | Content::Handshake => {}
                Content::Alert => match record::read_alert(message) {
                    Ok(Alert::CLOSE_NOTIFY) => {
                        self.peer_closed = true;
                        self.input = None;
                        return Ok(count);
                    }
                    // Goes before a close_notify.
                    Ok(Alert::USER_CANCELED) => {}
                    Ok(alert) => return Err(record::alerted(alert)),
                    Err(alert) => return Err(self.fail(alert)),
                },
            }
            self.idle_records += 1;
            if self.idle_records > MAX_IDLE_RECORDS {
                return Err(self.fail(Alert::UNEXPECTED_MESSAGE));
            }
        }
    }

    /// Opens the next record into the spare room of `into`, which grows only when it `may_grow`. None when the record is
    /// not whole yet, or there is no room.
    fn open_next(&mut self, into: &mut Buf, may_grow: bool) -> Result<Option<Opened>, Alert> {
        let Some(input) = &mut self.input else {
            return Ok(None);
        };
        let Some(len) = record::whole(input.filled())? else {
            self.busy |= record::announced(input.filled()) > BUSY_RECORD_BYTES;
            return Ok(None);
        };
        // What is opened is never longer than its record.
        if into.spare().len() < len {
            if !may_grow {
                return Ok(None);
            }
            into.reserve(len);
        }
        let opened = self.receive.open(&input.filled()[..len], into.spare());
        input.consume(len);
        if input.is_empty() {
            self.input = None;
        }
        opened.map(Some)
    }

    /// Handshake messages on an open connection, as many as are whole: a change of keys, or tickets of a server.
    fn take_messages(&mut self) -> io::Result<()> {
        let all = std::mem::take(&mut self.message);
        let mut rest = &all[..];
        while let Some((kind, body, after)) = record::split_message(rest) {
            if kind == record::NEW_SESSION_TICKET
                && self.keys.take_ticket(body).map_err(io::Error::other)?
            {
                rest = after;
                continue;
            }
            let message = &rest[..rest.len() - after.len()];
            let wants_answer = self.receive.read_key_update(message);
            // Under the new key nothing of the old can follow (RFC 8446 section 5.1).
            let wants_answer = match after.is_empty() {
                true => wants_answer,
                false => Err(Alert::UNEXPECTED_MESSAGE),
            };
            self.update_keys(wants_answer)?;
            rest = after;
        }
        if rest.len() > MAX_MESSAGE_BYTES {
            return Err(self.fail(Alert::UNEXPECTED_MESSAGE));
        }
        // Kept only when there is something to keep: an idle connection holds nothing.
        if !rest.is_empty() {
            self.message = rest.to_vec();
        }
        Ok(())
    }

    /// The peer has changed its sending keys (RFC 8446 section 4.6.3) and may want us to change ours.
    fn update_keys(&mut self, wants_answer: Result<bool, Alert>) -> io::Result<()> {
        let wants_answer = wants_answer.map_err(|alert| self.fail(alert))?;
        let secrets = self.keys.update_receive().map_err(io::Error::other)?;
        self.receive.replace(secrets)?;
        if wants_answer {
            self.update_send_key()?;
        }
        Ok(())
    }

    /// Says so under the old key, then takes the next.
    fn update_send_key(&mut self) -> io::Result<()> {
        let output = self.output.get_or_insert_with(Buf::small);
        output.reserve(record::MAX_OVERHEAD_BYTES + record::KEY_UPDATE.len());
        let message = [IoSlice::new(&record::KEY_UPDATE)];
        self.send.seal(
            Content::Handshake,
            &message,
            0,
            record::KEY_UPDATE.len(),
            output,
        )?;
        let secrets = self.keys.update_send().map_err(io::Error::other)?;
        self.send.replace(secrets)
    }

    /// Tells the peer what is wrong, as far as the kernel takes it at once, and gives the error.
    fn fail(&mut self, alert: Alert) -> io::Error {
        // It goes out with the next flush, or not at all: the connection is at its end.
        drop(self.seal_alert(alert));
        record::failed(alert)
    }

    fn seal_alert(&mut self, alert: Alert) -> io::Result<()> {
        let output = self.output.get_or_insert_with(Buf::small);
        let message = alert.message();
        output.reserve(record::MAX_OVERHEAD_BYTES + message.len());
        self.said_close = true;
        self.send.seal(
            Content::Alert,
            &[IoSlice::new(&message)],
            0,
            message.len(),
            output,
        )
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(output) = &mut self.output {
            let count = ready!(self.socket.poll_write(cx, &[IoSlice::new(output.filled())]))?;
            output.consume(count);
            if output.is_empty() {
                self.output = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Before waiting: what was to go with the next answer goes now (session tickets, the answer to a key update).
    fn send_what_waits(&mut self, cx: &mut Context<'_>) {
        if self.output.is_some() {
            // An error shows again when something is read or written.
            drop(self.poll_send(cx));
        }
    }

    fn has_record(&self) -> bool {
        let input = self.input.as_ref().map_or(&[][..], Buf::filled);
        !matches!(record::whole(input), Ok(None))
    }
}

impl Transport for TlsStream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.early.is_some() || self.peer_closed || self.has_record() {
            return Poll::Ready(Ok(()));
        }
        let ready = self.socket.poll_readable(cx);
        if ready.is_pending() {
            self.send_what_waits(cx);
        }
        ready
    }

    /// An end without a `close_notify` is an end as well: many clients don't say it, and HTTP frames its messages itself.
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Buf) -> Poll<io::Result<usize>> {
        if let Some(early) = &mut self.early {
            let count = early.len().min(into.spare().len());
            into.put(&early.filled()[..count]);
            early.consume(count);
            if early.is_empty() {
                self.early = None;
            }
            return Poll::Ready(Ok(count));
        }
        loop {
            if self.peer_closed {
                return Poll::Ready(Ok(0));
            }
            let opened = match self.open_records(into) {
                Ok(opened) => opened,
                Err(error) => {
                    self.send_what_waits(cx);
                    return Poll::Ready(Err(error));
                }
            };
            if opened > 0 {
                return Poll::Ready(Ok(opened));
            }
            if self.peer_closed {
                continue;
            }
            if self.input.is_none() && self.socket.poll_readable(cx).is_pending() {
                self.send_what_waits(cx);
                return Poll::Pending;
            }
            let busy = self.busy;
            let input = self
                .input
                .get_or_insert_with(|| if busy { Buf::large() } else { Buf::small() });
            input.reserve_for(record::announced(input.filled()).max(record::HEADER_BYTES));
            let room = input.spare().len();
            let read = self.socket.poll_read(cx, input);
            if input.is_empty() {
                self.input = None;
            }
            match read {
                Poll::Ready(Ok(0)) => self.peer_closed = true,
                Poll::Ready(Ok(count)) => self.busy = count == room,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.send_what_waits(cx);
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        if self.said_close {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let records = total.div_ceil(MAX_PLAIN_BYTES);
        let wanted = total + records * record::MAX_OVERHEAD_BYTES;
        if self
            .output
            .as_mut()
            .is_some_and(|output| output.spare().len() < wanted)
        {
            ready!(self.poll_send(cx))?;
        }
        if self.send.is_worn() {
            self.update_send_key()?;
        }
        let mut output = match self.output.take() {
            Some(output) => output,
            None if wanted <= crate::net::SMALL_BYTES => Buf::small(),
            None => Buf::large(),
        };
        let mut sealed = 0;
        while sealed < total {
            let room = output
                .spare()
                .len()
                .saturating_sub(record::MAX_OVERHEAD_BYTES);
            let len = (total - sealed).min(MAX_PLAIN_BYTES);
            if room < len {
                break;
            }
            self.send
                .seal(Content::Data, parts, sealed, len, &mut output)?;
            sealed += len;
        }
        self.output = Some(output);
        Poll::Ready(Ok(sealed))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_close_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_farewell(cx))?;
        self.socket.poll_close_write(cx)
    }

    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.said_close {
            self.seal_alert(Alert::CLOSE_NOTIFY)?;
        }
        self.poll_send(cx)
    }

    fn is_watched(&self) -> bool {
        self.socket.is_watched()
    }

    fn abort(&mut self) {
        self.socket.abort();
    }
}

#[cfg(test)]
mod tests;
