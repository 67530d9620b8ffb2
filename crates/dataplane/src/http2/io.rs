//! A [`Transport`] as the h2 crate wants its connection.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::flood::Flood;
use crate::net::{Buf, Transport};

/// The connection's bytes, both ways. Bytes are held only while h2 has no room for them.
pub(crate) struct Io<T> {
    inner: T,
    /// Read and not yet given on.
    held: Option<Buf>,
    flood: Option<Flood>,
    /// Set when the peer floods us: nothing more is read.
    flooded: Rc<Cell<bool>>,
}

impl<T: Transport> Io<T> {
    /// `held`: bytes that were read before it was known what they are.
    pub(super) fn new(
        inner: T,
        held: Option<Buf>,
        mut flood: Option<Flood>,
        flooded: Rc<Cell<bool>>,
    ) -> Self {
        let held = held.filter(|held| !held.is_empty());
        if let (Some(flood), Some(held)) = (&mut flood, &held) {
            flooded.set(!flood.take(held.filled(), Instant::now));
        }
        Self {
            inner,
            held,
            flood,
            flooded,
        }
    }
}

impl<T> Io<T> {
    /// Of a client, to an upstream that was configured: nothing is counted.
    pub(crate) fn to_upstream(inner: T) -> Self {
        Self {
            inner,
            held: None,
            flood: None,
            flooded: Rc::default(),
        }
    }
}

impl<T: Transport + Unpin> AsyncRead for Io<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut held = match this.held.take() {
            Some(held) => held,
            None => {
                if this.flooded.get() {
                    // The task looks at the flag after it has polled the connection.
                    return Poll::Pending;
                }
                ready!(this.inner.poll_readable(cx))?;
                let mut fresh = Buf::small();
                if ready!(this.inner.poll_read(cx, &mut fresh))? == 0 {
                    return Poll::Ready(Ok(()));
                }
                if let Some(flood) = &mut this.flood
                    && !flood.take(fresh.filled(), Instant::now)
                {
                    this.flooded.set(true);
                    return Poll::Pending;
                }
                fresh
            }
        };
        let count = held.len().min(into.remaining());
        into.put_slice(&held.filled()[..count]);
        held.consume(count);
        if !held.is_empty() {
            this.held = Some(held);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Transport + Unpin> AsyncWrite for Io<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.as_mut()
            .poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.inner.poll_write(cx, parts))?;
        if let Some(flood) = &mut self.flood {
            flood.sent(count);
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_close_write(cx)
    }
}
