//! A connection on which a server says things by itself: messages to a subscriber, or what MONITOR sees.

use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::node::Node;
use super::scan::{Replies, Shape, elements, text};
use super::stream;
use crate::net::{Buf, Transport as _};
use crate::upstream::Wire;

/// Why something was not begun.
#[derive(Debug)]
pub(super) enum Fault {
    /// This is the reply.
    Refused(Vec<u8>),
    /// The connection is of no use any more.
    Lost(String),
}

/// What a server says by itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// A message of this channel; None: all hear it once.
    Message(Option<&'a [u8]>),
    /// The answer to a command of this name.
    Begun(&'a [u8]),
    /// This channel is another server's now.
    Gone(&'a [u8]),
}

/// Reads it. None: it is none of these.
pub(super) fn read(said: &[u8]) -> Option<Said<'_>> {
    if said.first() == Some(&b'+') {
        // Of MONITOR: its answer, and what it sees.
        return Some(match said {
            b"+OK\r\n" => Said::Begun(b"monitor"),
            _ => Said::Message(None),
        });
    }
    let parts = elements(said)?;
    let word = |at: usize| text(&said[parts.get(at)?.clone()]);
    Some(match word(0)? {
        b"message" => Said::Message(word(1)),
        b"pmessage" => Said::Message(word(2)),
        b"smessage" => Said::Message(None),
        b"sunsubscribe" => Said::Gone(word(1)?),
        name => Said::Begun(name),
    })
}

/// Such a connection.
pub(super) struct Ear {
    pub(super) node: Rc<Node>,
    wire: Wire,
    /// Ready when the server may not be used any more.
    retirement: Pin<Box<dyn Future<Output = ()>>>,
    input: Option<Buf>,
    scan: Replies,
}

impl Ear {
    pub(super) fn new(node: Rc<Node>, wire: Wire) -> Self {
        Self {
            retirement: Box::pin(Rc::clone(&node).retirement()),
            node,
            wire,
            input: None,
            scan: Replies::default(),
        }
    }

    /// Sends a command of this name and waits until it was answered so often. What else is said meanwhile goes to `hear`.
    pub(super) async fn tell(
        &mut self,
        name: &[u8],
        command: &[u8],
        times: usize,
        mut hear: impl FnMut(&Rc<Node>, &[u8]),
    ) -> Result<(), Fault> {
        let patience = self.node.patience();
        let told = tokio::time::timeout(patience, self.exchange(name, command, times, &mut hear));
        let late = || format!("no reply for {} ms", patience.as_millis());
        told.await.unwrap_or_else(|_| Err(Fault::Lost(late())))
    }

    async fn exchange(
        &mut self,
        name: &[u8],
        command: &[u8],
        times: usize,
        hear: &mut impl FnMut(&Rc<Node>, &[u8]),
    ) -> Result<(), Fault> {
        let lost = |error: std::io::Error| Fault::Lost(error.to_string());
        let (wire, mut sent) = (&mut self.wire, 0);
        while sent < command.len() {
            let part = [IoSlice::new(&command[sent..])];
            sent += poll_fn(|cx| wire.poll_write(cx, &part))
                .await
                .map_err(lost)?;
        }
        poll_fn(|cx| wire.poll_flush(cx)).await.map_err(lost)?;
        let (mut left, mut refused) = (times, None);
        poll_fn(|cx| {
            let heard = self.poll(cx, |node, said, shape| match (shape, read(said)) {
                (Shape::Error, _) => refused = Some(said.to_vec()),
                (_, Some(Said::Begun(of))) if of == name => left = left.saturating_sub(1),
                (_, Some(Said::Gone(_))) if name == b"sunsubscribe" => {
                    left = left.saturating_sub(1)
                }
                _ => hear(node, said),
            });
            match (heard, refused.take()) {
                (Err(why), _) => Poll::Ready(Err(Fault::Lost(why))),
                (Ok(()), Some(line)) => Poll::Ready(Err(Fault::Refused(line))),
                (Ok(()), None) if left == 0 => Poll::Ready(Ok(())),
                (Ok(()), None) => Poll::Pending,
            }
        })
        .await
    }

    /// Hands out what has come. The error is why nothing will come any more.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut hear: impl FnMut(&Rc<Node>, &[u8], Shape),
    ) -> Result<(), String> {
        let name = self.node.name();
        let lost = |why: &str| format!("the connection to {name} ended ({why})");
        if self.retirement.as_mut().poll(cx).is_ready() {
            return Err(lost("it is not used any more"));
        }
        let (scan, node) = (&mut self.scan, &self.node);
        let hand_out = |buf: &mut Buf| {
            while let Some((length, shape)) = scan.next(buf.filled())? {
                hear(node, &buf.filled()[..length], shape);
                buf.consume(length);
            }
            Ok(())
        };
        let some = stream::read(&mut self.wire, &mut self.input, cx, hand_out);
        some.map(drop).map_err(|why| lost(&why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_told_apart() {
        let check = |said: &str, expected: Said<'_>| {
            let parts: Vec<&str> = said.split(' ').collect();
            for kind in ['*', '>'] {
                let mut bytes = format!("{kind}{}\r\n", parts.len()).into_bytes();
                for part in &parts {
                    super::super::scan::put_bulk(&mut bytes, part.as_bytes());
                }
                assert_eq!(read(&bytes).as_ref(), Some(&expected), "{said}");
            }
        };
        check("message news x", Said::Message(Some(b"news")));
        check("pmessage n* news x", Said::Message(Some(b"news")));
        check("smessage news x", Said::Message(None));
        check("sunsubscribe news 0", Said::Gone(b"news"));
        check("psubscribe n* 1", Said::Begun(b"psubscribe"));
        assert_eq!(read(b"+OK\r\n"), Some(Said::Begun(b"monitor")));
        assert_eq!(read(b"+1.5 [0 a:1] \"get\"\r\n"), Some(Said::Message(None)));
        assert_eq!(read(b":1\r\n"), None);
        assert_eq!(read(b"*0\r\n"), None);
    }
}
