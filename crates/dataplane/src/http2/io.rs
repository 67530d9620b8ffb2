//! A [`Transport`] as the h2 crate wants its connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::{Buf, Transport};

/// The connection's bytes, both ways. Bytes are held only while h2 has no room for them.
#[derive(Debug)]
pub struct Io<T> {
    inner: T,
    /// Read and not yet given on.
    held: Option<Buf>,
}

impl<T> Io<T> {
    /// Over this transport.
    pub fn new(inner: T) -> Self {
        Self { inner, held: None }
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
                ready!(this.inner.poll_readable(cx))?;
                let mut fresh = Buf::small();
                if ready!(this.inner.poll_read(cx, &mut fresh))? == 0 {
                    return Poll::Ready(Ok(()));
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
        self.inner.poll_write(cx, parts)
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
