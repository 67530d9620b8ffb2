//! What a request passes between its parsing and its forwarding: a chain of stages.
//!
//! ```text
//!   head ─► View ─► stage ─► stage ─► … ─► forwarded; what the stages added goes into the answer's head
//!                     │        ╰─ waits (rare): the chain goes on behind it when it has ended
//!                     ╰─ answers itself: nothing is forwarded
//! ```
//!
//! A stage looks at the request in place: a [`View`] is a few references into the connection's buffer. What it adds to the
//! answer goes into a pooled buffer, and what it holds until the answer's end is a number of its own, so the usual way costs
//! no allocation; a chain without stages costs a comparison. A stream of HTTP/2 comes as a connection of HTTP/1.1 (see
//! [`crate::http2`]), so a stage is written once.
//!
//! What was rejected: generic layers (each combination is a type of its own, and a chain that is read from a file has none),
//! and boxed futures for all stages (an allocation a request for what hardly ever waits).

use std::borrow::Cow;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;

use tokio::time::Instant;

use super::head::{RequestHead, Target};
use crate::net::{Buf, Peer};

/// One stage. One per worker; shared by its connections.
pub trait Stage: 'static {
    /// Looks at a request before it is forwarded. Must not block.
    fn look(&self, request: &View<'_>, pass: &mut Pass<'_>) -> Verdict;

    /// The answer to a request for which `held` was held has ended, however it ended. Called once for each.
    fn done(&self, held: u64) {
        let _ = held;
    }
}

/// What becomes of a request.
pub enum Verdict {
    /// It goes on.
    Pass,
    /// It is answered here.
    Answer(Reply),
    /// It is not known yet. The future must end by a deadline of its own. While it lasts the client's bytes wait in the
    /// connection's buffer. When it is dropped before its end (the connection was cut) nothing is held.
    Wait(Pin<Box<dyn Future<Output = Waited>>>),
}

/// What a wait came to.
pub struct Waited {
    /// Whole field lines (`Name: value\r\n`) to be added to the answer.
    pub fields: Vec<u8>,
    /// Each to be held until the answer's end.
    pub held: Vec<u64>,
    /// An answer of the stage's own; None for a request that goes on.
    pub reply: Option<Reply>,
}

/// An answer of a stage's own. Date, Content-Length, Connection and what stages added are put in by the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status code, 200 to 599.
    pub status: u16,
    /// The Content-Type.
    pub content_type: &'static str,
    /// The body.
    pub body: Cow<'static, [u8]>,
}

/// What a stage may add while it looks.
pub struct Pass<'a> {
    fields: &'a mut Option<Buf>,
    held: &'a mut Vec<(usize, u64)>,
    at: usize,
}

impl Pass<'_> {
    /// Where whole field lines (`Name: value\r\n`) for the answer are written, whoever answers.
    pub fn fields(&mut self) -> &mut Buf {
        self.fields.get_or_insert_with(Buf::small)
    }

    /// [`Stage::done`] is called with `held` when the answer has ended.
    pub fn hold(&mut self, held: u64) {
        self.held.push((self.at, held));
    }
}

/// A request, as a stage sees it.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(super) head: &'a RequestHead,
    pub(super) bytes: &'a [u8],
    pub(super) peer: Peer,
    pub(super) scheme: &'static str,
    pub(super) now: Instant,
}

impl<'a> View<'a> {
    /// The method as it was written.
    pub fn method(&self) -> &'a [u8] {
        self.head.method_token().bytes(self.bytes)
    }

    /// Path and query, as they were written.
    fn target(&self) -> &'a [u8] {
        match self.head.target() {
            Target::Origin(span) | Target::Asterisk(span) => span.bytes(self.bytes),
            Target::Absolute { path, .. } => path.bytes(self.bytes),
        }
    }

    /// The path as it was written, `/` when the target has none; `*` for OPTIONS of the server as a whole.
    pub fn path(&self) -> &'a [u8] {
        let target = self.target();
        let end = target.iter().position(|byte| *byte == b'?');
        match &target[..end.unwrap_or(target.len())] {
            [] => b"/",
            path => path,
        }
    }

    /// What follows the `?`, not decoded; None without one.
    pub fn query(&self) -> Option<&'a [u8]> {
        let target = self.target();
        let at = target.iter().position(|byte| *byte == b'?')?;
        Some(&target[at + 1..])
    }

    /// The value of the first query parameter of that name, not decoded.
    pub fn query_value(&self, name: &str) -> Option<&'a [u8]> {
        self.query()?
            .split(|byte| *byte == b'&')
            .find_map(|pair| named(pair, name))
    }

    /// The values of the fields of that name (any case), in order.
    pub fn fields<'n>(
        &self,
        name: &'n str,
    ) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a, 'n> {
        let (head, bytes) = (self.head, self.bytes);
        head.fields
            .iter()
            .filter(move |field| {
                let found = field.name.bytes(bytes);
                found.eq_ignore_ascii_case(name.as_bytes())
            })
            .map(move |field| field.value.bytes(bytes))
    }

    /// The value of the first cookie of that name (RFC 6265 section 4.2.1).
    pub fn cookie(&self, name: &str) -> Option<&'a [u8]> {
        self.fields("cookie")
            .flat_map(|value| value.split(|byte| *byte == b';'))
            .find_map(|pair| named(pair.trim_ascii(), name))
    }

    /// The host that is asked: of the target, else of the Host field.
    pub fn authority(&self) -> Option<&'a [u8]> {
        self.head.authority().map(|span| span.bytes(self.bytes))
    }

    /// Who is connected.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// What the client speaks: `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// When the head was there.
    pub fn now(&self) -> Instant {
        self.now
    }
}

fn named<'b>(pair: &'b [u8], name: &str) -> Option<&'b [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// A chain of stages; clones share.
#[derive(Clone)]
pub struct Stages(Rc<[Rc<dyn Stage>]>);

impl Stages {
    /// Requests pass `stages` in this order.
    pub fn new(stages: Vec<Rc<dyn Stage>>) -> Self {
        Self(stages.into())
    }

    /// Every request passes.
    pub fn none() -> Self {
        Self::new(Vec::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} stages", self.0.len())
    }
}

/// A request's way through the chain, and what is held for it until its answer has ended. One per connection, used again
/// for each request.
#[derive(Debug)]
pub(super) struct Passage {
    stages: Stages,
    next: usize,
    fields: Option<Buf>,
    held: Vec<(usize, u64)>,
}

impl Passage {
    pub(super) fn new() -> Self {
        Self {
            stages: Stages::none(),
            next: 0,
            fields: None,
            held: Vec::new(),
        }
    }

    /// A request begins its way through `stages`; the one before has ended.
    pub(super) fn begin(&mut self, stages: &Stages) {
        debug_assert!(
            self.held.is_empty() && self.next == 0,
            "the former has ended"
        );
        if !Rc::ptr_eq(&self.stages.0, &stages.0) {
            self.stages = stages.clone();
        }
    }

    /// There is nothing to pass.
    pub(super) fn is_free(&self) -> bool {
        self.stages.is_empty()
    }

    /// Goes on until a stage answers or waits. Called again after a wait, it goes on behind the stage that waited.
    pub(super) fn go(&mut self, request: &View<'_>) -> Verdict {
        while let Some(stage) = self.stages.0.get(self.next) {
            let mut pass = Pass {
                fields: &mut self.fields,
                held: &mut self.held,
                at: self.next,
            };
            self.next += 1;
            match stage.look(request, &mut pass) {
                Verdict::Pass => {}
                other => return other,
            }
        }
        Verdict::Pass
    }

    /// Takes what the stage that waited came to.
    pub(super) fn resume(&mut self, waited: Waited) -> Option<Reply> {
        if !waited.fields.is_empty() {
            let fields = self.fields.get_or_insert_with(Buf::small);
            fields.put(&waited.fields);
        }
        // `go` stepped over the stage before it waited.
        let at = self.next - 1;
        self.held
            .extend(waited.held.into_iter().map(|held| (at, held)));
        waited.reply
    }

    /// Whole field lines for the answer.
    pub(super) fn fields(&self) -> &[u8] {
        self.fields.as_ref().map_or(&[], Buf::filled)
    }

    /// The answer has ended: what was held is given back, in the opposite order.
    pub(super) fn end(&mut self) {
        while let Some((at, held)) = self.held.pop() {
            self.stages.0[at].done(held);
        }
        self.next = 0;
        self.fields = None;
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.end();
    }
}
