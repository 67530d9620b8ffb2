//! A server, and the connection to it that the commands of all clients share.
//!
//! It is dialled when a command comes, and again after it was lost: what was provably not sent is sent then, and what was sent and not
//! answered gets an error that says so.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::reply::{Replies, Until};
use crate::net::Buf;
use crate::resp::stream::{self, Outgoing, Rest};
use crate::resp::{Busy, Silence, Ticket, Waits};
use crate::upstream::{Pool, Wire};

/// A server, as one worker sees it.
#[derive(Debug)]
pub struct Node(Rc<Lane>);

impl Node {
    /// `name` is for messages; Spawns the task that carries it.
    pub fn new(name: &str, pool: Rc<Pool>, waits: Waits) -> Rc<Self> {
        let lane = Rc::new(Lane {
            name: name.into(),
            pool,
            waits,
            state: RefCell::default(),
            closing: Cell::new(false),
        });
        drop(tokio::task::spawn_local(Rc::clone(&lane).live()));
        Rc::new(Self(lane))
    }

    pub(super) fn lane(&self) -> &Lane {
        &self.0
    }

    /// Ends it at once. What waits gets an error, and nothing of it is sent any more.
    pub fn retire(&self, why: &str) {
        self.0.closing.set(true);
        self.0.state.borrow_mut().retired = true;
        self.0.lost(why);
        if let Some(task) = &self.0.state.borrow().task {
            task.wake_by_ref();
        }
    }
}

/// What is sent of it is still answered.
impl Drop for Node {
    fn drop(&mut self) {
        self.0.closing.set(true);
        if let Some(task) = &self.0.state.borrow().task {
            task.wake_by_ref();
        }
    }
}

#[derive(Debug)]
pub(super) struct Lane {
    /// Of the server, for messages.
    name: Box<str>,
    pool: Rc<Pool>,
    waits: Waits,
    state: RefCell<State>,
    /// Nobody may use it any more: it ends when all is answered.
    closing: Cell<bool>,
}

#[derive(Debug, Default)]
struct State {
    out: Outgoing,
    waiting: VecDeque<Waiting>,
    task: Option<Waker>,
    /// Clients that wait for room.
    crowd: Vec<Waker>,
    rest: Rest,
    meta: Meta,
    /// Nothing may reach the server by it any more.
    retired: bool,
}

/// Whether the server knows meta commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Meta {
    #[default]
    Unknown,
    Asked,
    Known(bool),
}

#[derive(Debug)]
struct Waiting {
    /// None: podkit itself has asked, whether the server knows meta commands.
    ticket: Option<Ticket>,
    want: Want,
    /// Where its command begins.
    start: u64,
}

/// What a client gets of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    All,
    /// It said `noreply`.
    Nothing,
    /// What comes before the reply to the `mn` that is sent behind the command.
    Quiet,
}

impl Waiting {
    fn fail(self, line: &str) {
        if let Some(ticket) = self.ticket {
            ticket.reply(match self.want {
                Want::Nothing => b"",
                Want::All | Want::Quiet => line.as_bytes(),
            });
        }
    }
}

impl State {
    fn watch(&mut self, cx: &Context<'_>) {
        let known = self.task.as_ref();
        if !known.is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
        }
    }

    fn send(&mut self, parts: &[&[u8]], want: Want, ticket: Option<Ticket>) {
        let start = self.out.end();
        let waiting = Waiting {
            ticket,
            want,
            start,
        };
        if self.retired {
            return waiting.fail(&error("the shard is not used any more"));
        }
        if self.rest.is_begun() {
            if let Some(why) = self.rest.why() {
                return waiting.fail(&error(why));
            }
            self.rest.end();
        }
        let idle = self.out.unsent() == 0;
        parts.iter().for_each(|part| self.out.put(part));
        if want == Want::Quiet {
            self.out.put(b"mn\r\n");
        }
        self.waiting.push_back(waiting);
        // Whoever carries it is awake while something waits to be sent.
        if idle && let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }
}

impl Lane {
    /// There is room for another command. Otherwise the task of `cx` is woken when there is.
    pub(super) fn has_room(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state.borrow_mut();
        let full = state.out.is_full(state.waiting.len());
        if full {
            state.crowd.push(cx.waker().clone());
        }
        !full
    }

    /// Whether the server knows meta commands: one that does not would read the value of an `ms` as commands. None: it is asked, and the
    /// task of `cx` is woken when it has answered.
    pub(super) fn knows_meta(&self, cx: &Context<'_>) -> Option<bool> {
        let state = &mut *self.state.borrow_mut();
        match state.meta {
            Meta::Known(known) => return Some(known),
            // Nothing is sent to it.
            _ if state.retired || state.rest.why().is_some() => return Some(true),
            Meta::Asked => {}
            Meta::Unknown => {
                state.meta = Meta::Asked;
                state.send(&[b"mn\r\n"], Want::All, None);
            }
        }
        state.crowd.push(cx.waker().clone());
        None
    }

    /// Sends a command that is in these parts.
    #[inline]
    pub(super) fn send(&self, parts: &[&[u8]], want: Want, ticket: Ticket) {
        let state = &mut *self.state.borrow_mut();
        state.send(parts, want, Some(ticket));
    }

    async fn live(self: Rc<Self>) {
        while poll_fn(|cx| self.poll_work(cx)).await {
            match self.pool.connect_alone(None).await {
                Ok(wire) => {
                    self.state.borrow_mut().rest.forget();
                    let why = self.carry(wire).await;
                    self.lost(&why);
                }
                Err(why) => self.unreachable(&why.to_string()),
            }
        }
    }

    /// Ready when there is something to send; false when there never will be.
    fn poll_work(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.state.borrow_mut();
        state.watch(cx);
        match (state.waiting.is_empty(), self.closing.get()) {
            (false, _) => Poll::Ready(true),
            (true, true) => Poll::Ready(false),
            (true, false) => Poll::Pending,
        }
    }

    /// Moves commands and replies until the connection ends; says why it did.
    async fn carry(&self, mut wire: Wire) -> String {
        let (mut input, mut scan) = (None, Replies::default());
        let mut silence = Silence::new(self.waits.patience);
        let mut busy = Busy::new(self.waits.busy_poll);
        poll_fn(|cx| {
            self.state.borrow_mut().watch(cx);
            let moved = self.write(&mut wire, cx).and_then(|()| {
                let hand_out = |buf: &mut Buf| self.hand_out(buf, &mut scan);
                stream::read(&mut wire, &mut input, cx, hand_out)
            });
            let heard = match moved {
                Ok(heard) => heard,
                Err(why) => return Poll::Ready(why),
            };
            let waits = !self.state.borrow().waiting.is_empty();
            if !waits && self.closing.get() {
                return Poll::Ready("it is not needed any more".to_owned());
            }
            match silence.is_over(cx, waits, heard) {
                true => Poll::Ready(format!(
                    "no reply for {} ms",
                    self.waits.patience.as_millis()
                )),
                false => {
                    busy.look_again(cx, self.state.borrow().out.sent(), heard);
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn write(&self, wire: &mut Wire, cx: &mut Context<'_>) -> Result<(), String> {
        let state = &mut *self.state.borrow_mut();
        state.out.write(wire, cx)?;
        if !state.crowd.is_empty() && state.out.has_room_again(state.waiting.len()) {
            state.crowd.drain(..).for_each(Waker::wake);
        }
        Ok(())
    }

    /// Hands out the replies that are there.
    fn hand_out(&self, buf: &mut Buf, scan: &mut Replies) -> Result<(), String> {
        let state = &mut *self.state.borrow_mut();
        let mut taken = 0;
        let bytes = buf.filled();
        while taken < bytes.len() {
            let Some(first) = state.waiting.front() else {
                return Err("it replied to nothing".to_owned());
            };
            let until = match first.want {
                Want::Quiet => Until::Noop,
                Want::All | Want::Nothing => Until::Itself,
            };
            let Some(length) = scan.next(&bytes[taken..], until)? else {
                break;
            };
            let reply = &bytes[taken..taken + length];
            taken += length;
            let waiting = state.waiting.pop_front().expect("it was looked at");
            let Some(ticket) = waiting.ticket else {
                state.meta = Meta::Known(reply == b"MN\r\n");
                state.crowd.drain(..).for_each(Waker::wake);
                continue;
            };
            ticket.reply(match waiting.want {
                Want::All => reply,
                Want::Nothing => b"",
                Want::Quiet => {
                    let before = memchr::memrchr(b'\n', &reply[..length - 1]);
                    &reply[..before.map_or(0, |at| at + 1)]
                }
            });
        }
        buf.consume(taken);
        let first = state.waiting.front();
        state
            .out
            .answered(first.map_or(state.out.end(), |first| first.start));
        Ok(())
    }

    /// The connection ended: what was sent gets an error, what was not is kept for the next one.
    fn lost(&self, why: &str) {
        let state = &mut *self.state.borrow_mut();
        let sent = state.out.sent();
        let line = error(&format!(
            "the connection to {} ended before it replied ({why}): what the command does may have been done",
            self.name
        ));
        // It may be another one that comes back.
        state.meta = Meta::Unknown;
        state.crowd.drain(..).for_each(Waker::wake);
        let mut answered = 0;
        while let Some(first) = state.waiting.front()
            && (state.retired || first.start < sent)
        {
            let waiting = state.waiting.pop_front().expect("it was looked at");
            match waiting.start < sent {
                true => waiting.fail(&line),
                false => waiting.fail(&error(&format!("{} was not told it: {why}", self.name))),
            }
            answered += 1;
        }
        // From the first command of which nothing was sent.
        let first = state.waiting.front();
        let from = first.map_or(state.out.end(), |first| first.start);
        state.out.restart(from);
        if answered > 0 {
            let server = &*self.name;
            tracing::warn!(
                server,
                why,
                answered,
                "a connection ended with commands on it"
            );
        }
    }

    /// It can't be dialled.
    fn unreachable(&self, why: &str) {
        let state = &mut *self.state.borrow_mut();
        let line = error(&state.rest.begin(&self.name, why));
        state
            .waiting
            .drain(..)
            .for_each(|waiting| waiting.fail(&line));
        state.out.clear();
        state.meta = Meta::Unknown;
        state.crowd.drain(..).for_each(Waker::wake);
    }
}

fn error(why: &str) -> String {
    format!("SERVER_ERROR {why}\r\n")
}
