//! What a request goes to an upstream over, so that who forwards need not know.

use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use crate::http2::Exchange;
use crate::net::{Buf, Socket, Transport};
use crate::tls::TlsStream;

/// A connection to an upstream that carries HTTP/1.1 (or plain bytes).
#[derive(Debug)]
pub enum Wire {
    /// In the clear.
    Plain(Socket),
    /// By TLS.
    Tls {
        /// The connection.
        stream: Box<TlsStream>,
        /// That of the files which it was opened with.
        generation: u64,
    },
    /// A stream of HTTP/2, which carries one request.
    Http2(Box<Exchange>),
}

impl From<Socket> for Wire {
    fn from(socket: Socket) -> Self {
        Self::Plain(socket)
    }
}

impl Wire {
    /// The upstream has said that it did not look at the request.
    pub(crate) fn is_unprocessed(&self) -> bool {
        matches!(self, Self::Http2(exchange) if exchange.is_unprocessed())
    }

    /// It can carry another request; `generation` is that of TLS' files in force. What they said before is no more to be relied on.
    pub(super) fn can_be_kept(&self, generation: u64) -> bool {
        match self {
            Self::Plain(_) => true,
            Self::Tls { generation: of, .. } => *of == generation,
            Self::Http2(_) => false,
        }
    }
}

/// The same call on whatever it is.
macro_rules! each {
    ($wire:expr, $io:ident => $call:expr) => {
        match $wire {
            Wire::Plain($io) => $call,
            Wire::Tls { stream: $io, .. } => $call,
            Wire::Http2($io) => $call,
        }
    };
}

impl Transport for Wire {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_readable(cx))
    }

    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_arrival(cx))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Buf) -> Poll<io::Result<usize>> {
        each!(self, io => io.poll_read(cx, into))
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => io.poll_write(cx, parts))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_flush(cx))
    }

    fn poll_close_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => io.poll_close_write(cx))
    }

    fn abort(&mut self) {
        each!(self, io => io.abort());
    }
}
