//! The replies that a client waits for, in the order of its commands, wherever they come from.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Context, Waker};

use super::join::Join;
use super::keep::{Failure, Keep};
use crate::net::Buf;

/// What a client is to be sent. Shared by its own task, which writes it, and the lanes, which bring it.
#[derive(Debug, Default)]
pub(crate) struct Outbox(RefCell<State>);

#[derive(Debug, Default)]
struct State {
    /// Ready to be written.
    out: Option<Buf>,
    /// One for each command that has no place in `out` yet, oldest first.
    slots: VecDeque<Slot>,
    early: Early,
    /// The number of the oldest.
    first: u64,
    waker: Option<Waker>,
    mute: Mute,
    /// The client is gone: what comes is of no use.
    gone: bool,
}

/// Whose replies the client does not want (CLIENT REPLY).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mute {
    #[default]
    Nobody,
    Next,
    All,
}

#[derive(Debug)]
enum Slot {
    Waiting,
    /// It is among the early ones.
    Early(Range<usize>),
    /// Likewise, where there was no room.
    Ready(Vec<u8>),
    Joined(Box<Join>),
}

/// Replies that came before their turn, one behind the other: of several servers one is always faster.
#[derive(Debug, Default)]
struct Early {
    bytes: Option<Buf>,
    /// How many of them have not been taken yet.
    left: usize,
}

impl Early {
    #[inline]
    fn keep(&mut self, reply: &[u8]) -> Slot {
        let bytes = self.bytes.get_or_insert_with(Buf::small);
        if bytes.spare().len() < reply.len() {
            return Slot::Ready(reply.to_vec());
        }
        let start = bytes.len();
        bytes.put(reply);
        self.left += 1;
        Slot::Early(start..bytes.len())
    }

    /// Moves one to `out`.
    #[inline]
    fn take(&mut self, range: Range<usize>, out: &mut Option<Buf>) {
        if let Some(bytes) = &self.bytes {
            put(out, &bytes.filled()[range]);
        }
        self.left -= 1;
        if self.left == 0 {
            self.bytes = None;
        }
    }
}

/// A command that waits for its reply, or for a part of it.
#[derive(Debug)]
pub struct Ticket {
    outbox: Rc<Outbox>,
    number: u64,
    /// Which part, where several make one reply.
    part: u32,
    /// Where the values of its reply end is of use.
    of_values: bool,
    /// The client does not want the reply.
    muted: bool,
    /// Who wants the command back when it was not done.
    keep: Option<Box<dyn Keep>>,
}

impl Outbox {
    /// The next command's reply comes from one place.
    #[inline]
    pub(crate) fn ticket(self: &Rc<Self>) -> Ticket {
        let (number, muted) = self.open(Slot::Waiting);
        Ticket {
            outbox: Rc::clone(self),
            number,
            part: 0,
            of_values: false,
            muted,
            keep: None,
        }
    }

    /// The next command's reply is made of `parts`.
    pub(crate) fn tickets(
        self: &Rc<Self>,
        join: Join,
        parts: u32,
    ) -> impl Iterator<Item = Ticket> + use<> {
        let of_values = join.is_of_values();
        let (number, muted) = self.open(Slot::Joined(Box::new(join)));
        let outbox = Rc::clone(self);
        (0..parts).map(move |part| Ticket {
            outbox: Rc::clone(&outbox),
            number,
            part,
            of_values,
            muted,
            keep: None,
        })
    }

    /// A place for a command's reply: its number, and whether the client does not want it.
    #[inline]
    fn open(&self, mut slot: Slot) -> (u64, bool) {
        let state = &mut *self.0.borrow_mut();
        let number = state.first + state.slots.len() as u64;
        let muted = state.is_mute();
        if muted && let Slot::Joined(join) = &mut slot {
            join.mute();
        }
        state.slots.push_back(slot);
        (number, muted)
    }

    /// From the next command on.
    pub(super) fn mute(&self, mute: Mute) {
        self.0.borrow_mut().mute = mute;
    }

    /// No reply is wanted until that is taken back.
    pub(super) fn is_silent(&self) -> bool {
        self.0.borrow().mute == Mute::All
    }

    /// The next command's reply is known.
    pub(crate) fn answer(&self, reply: &[u8]) {
        let state = &mut *self.0.borrow_mut();
        if state.is_mute() {
            return;
        }
        if state.slots.is_empty() {
            state.put(reply);
        } else {
            let slot = state.early.keep(reply);
            state.slots.push_back(slot);
        }
    }

    /// The next command is answered by something that is no reply: nobody can mute it.
    pub(super) fn say(&self, said: &[u8]) {
        self.answer(b"");
        self.push(said);
    }

    /// Something that is no reply, behind those to all that was asked.
    pub(super) fn behind(&self, said: &[u8]) {
        let state = &mut *self.0.borrow_mut();
        if state.gone {
            return;
        }
        if !state.slots.is_empty() {
            let slot = state.early.keep(said);
            return state.slots.push_back(slot);
        }
        state.put(said);
        if let Some(waker) = &state.waker {
            waker.wake_by_ref();
        }
    }

    /// Something that is no reply, between two.
    pub(crate) fn push(&self, said: &[u8]) {
        self.0.borrow_mut().put(said);
    }

    /// Commands that have no reply yet.
    pub(crate) fn waiting(&self) -> usize {
        self.0.borrow().slots.len()
    }

    /// Bytes that wait to be written.
    pub(crate) fn bytes(&self) -> usize {
        self.0.borrow().out.as_ref().map_or(0, Buf::len)
    }

    /// Calls `write` with what is ready to be written.
    pub(crate) fn with<R>(&self, write: impl FnOnce(&mut Option<Buf>) -> R) -> R {
        write(&mut self.0.borrow_mut().out)
    }

    /// Who is woken when something is ready.
    pub(crate) fn watch(&self, cx: &Context<'_>) {
        let mut state = self.0.borrow_mut();
        if !state
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            state.waker = Some(cx.waker().clone());
        }
    }

    /// Nobody reads it any more.
    pub(crate) fn close(&self) {
        let mut state = self.0.borrow_mut();
        *state = State {
            gone: true,
            ..State::default()
        };
    }
}

impl State {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        put(&mut self.out, bytes);
    }

    /// The client does not want the reply of the command that has come.
    #[inline]
    fn is_mute(&mut self) -> bool {
        let mute = self.mute;
        if mute == Mute::Next {
            self.mute = Mute::Nobody;
        }
        mute != Mute::Nobody
    }

    /// Moves on what is ready at the front.
    fn settle(&mut self) {
        while let Some(slot) = self.slots.front() {
            match slot {
                Slot::Early(range) => self.early.take(range.clone(), &mut self.out),
                Slot::Ready(reply) => put(&mut self.out, reply),
                Slot::Joined(join) if join.finish(&mut self.out) => {}
                Slot::Waiting | Slot::Joined(_) => return,
            }
            self.slots.pop_front();
            self.first += 1;
        }
    }
}

/// Appends a reply. One of no bytes, as memcached has them, leaves nothing to be written.
#[inline]
pub(super) fn put(out: &mut Option<Buf>, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.get_or_insert_with(Buf::small).put(bytes);
    }
}

impl Ticket {
    /// The command goes back to `keep` when it was not done.
    pub fn kept(mut self, keep: Box<dyn Keep>) -> Self {
        self.keep = Some(keep);
        self
    }

    /// The command was not done.
    pub fn fail(mut self, failure: Failure<'_>) {
        match self.keep.take() {
            Some(keep) => keep.failed(failure, self),
            None => self.reply(failure.line()),
        }
    }

    /// Hands in the reply.
    #[inline]
    pub fn reply(self, bytes: &[u8]) {
        self.reply_of(bytes, &[]);
    }

    /// It is worth noting where the values of its reply end.
    #[inline]
    pub(super) fn is_of_values(&self) -> bool {
        self.of_values
    }

    /// Hands in the reply, with the ends of its values where they were noted.
    #[inline]
    pub(super) fn reply_of(self, bytes: &[u8], ends: &[usize]) {
        if self.keep.is_some() && bytes.first() == Some(&b'-') {
            return self.fail(Failure::Error(bytes));
        }
        let bytes = if self.muted { &[] } else { bytes };
        let state = &mut *self.outbox.0.borrow_mut();
        if state.gone {
            return;
        }
        let at = usize::try_from(self.number - state.first).unwrap_or(usize::MAX);
        match state.slots.get_mut(at) {
            Some(Slot::Waiting) if at == 0 => {
                state.slots.pop_front();
                state.first += 1;
                state.put(bytes);
                if !state.slots.is_empty() {
                    state.settle();
                }
            }
            Some(slot @ Slot::Waiting) => *slot = state.early.keep(bytes),
            Some(Slot::Joined(join)) => {
                join.part(self.part, bytes, ends);
                if at == 0 {
                    state.settle();
                }
            }
            Some(Slot::Early(_) | Slot::Ready(_)) | None => {}
        }
        // One that is empty makes room.
        if (state.out.is_some() || bytes.is_empty())
            && let Some(waker) = &state.waker
        {
            waker.wake_by_ref();
        }
    }

    /// Nobody waits for it any more.
    pub fn is_void(&self) -> bool {
        self.outbox.0.borrow().gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::join::Merge;

    fn ready(outbox: &Outbox) -> String {
        outbox.with(|out| {
            let text = out.as_ref().map_or(String::new(), |out| {
                String::from_utf8_lossy(out.filled()).into_owned()
            });
            *out = None;
            text
        })
    }

    #[test]
    fn replies_leave_in_the_order_of_the_commands() {
        let outbox = Rc::new(Outbox::default());
        let (first, second) = (outbox.ticket(), outbox.ticket());
        outbox.answer(b"+3\r\n");
        let fourth = outbox.ticket();
        second.reply(b"+2\r\n");
        assert_eq!(ready(&outbox), "");
        first.reply(b"+1\r\n");
        assert_eq!(ready(&outbox), "+1\r\n+2\r\n+3\r\n");
        assert_eq!(outbox.waiting(), 1);
        fourth.reply(b"+4\r\n");
        outbox.answer(b"+5\r\n");
        assert_eq!(ready(&outbox), "+4\r\n+5\r\n");
    }

    #[test]
    fn early_replies_keep_their_bytes_whatever_their_size() {
        let outbox = Rc::new(Outbox::default());
        let large = "x".repeat(9_000);
        // More than one buffer has room for, twice: it is used anew once all was taken.
        for _ in 0..2 {
            let mut tickets: Vec<Ticket> = (0..5).map(|_| outbox.ticket()).collect();
            let first = tickets.remove(0);
            for (at, ticket) in tickets.into_iter().enumerate().rev() {
                ticket.reply(format!("{at}{large}").as_bytes());
            }
            first.reply(b"first");
            let expected: String = (0..4).map(|at| format!("{at}{large}")).collect();
            assert_eq!(ready(&outbox), format!("first{expected}"));
            assert!(outbox.0.borrow().early.bytes.is_none());
        }
    }

    #[test]
    fn parts_make_one_reply() {
        let outbox = Rc::new(Outbox::default());
        let parts: Vec<Ticket> = outbox.tickets(Join::new(Merge::Sum, 2), 2).collect();
        let last = outbox.ticket();
        last.reply(b"+after\r\n");
        for part in parts {
            assert_eq!(ready(&outbox), "");
            part.reply(b":2\r\n");
        }
        assert_eq!(ready(&outbox), ":4\r\n+after\r\n");
    }

    #[test]
    fn replies_of_no_bytes_leave_nothing_to_write() {
        let outbox = Rc::new(Outbox::default());
        let (first, second) = (outbox.ticket(), outbox.ticket());
        second.reply(b"");
        first.reply(b"");
        assert_eq!(outbox.waiting(), 0);
        outbox.with(|out| assert!(out.is_none()));
    }

    #[test]
    fn what_is_not_wanted_is_left_out() {
        let outbox = Rc::new(Outbox::default());
        let first = outbox.ticket();
        outbox.mute(Mute::Next);
        let skipped = outbox.ticket();
        outbox.answer(b"+3\r\n");
        outbox.mute(Mute::All);
        outbox.answer(b"+no\r\n");
        let parts: Vec<Ticket> = outbox.tickets(Join::new(Merge::Sum, 2), 2).collect();
        let lost = outbox.ticket();
        outbox.mute(Mute::Nobody);
        let last = outbox.ticket();
        skipped.reply(b"+no\r\n");
        lost.fail(Failure::Lost(b"-no\r\n"));
        first.reply(b"+1\r\n");
        assert_eq!(ready(&outbox), "+1\r\n+3\r\n");
        last.reply(b"+last\r\n");
        parts.into_iter().for_each(|part| part.reply(b"-no\r\n"));
        assert_eq!(ready(&outbox), "+last\r\n");
        assert_eq!(outbox.waiting(), 0);
    }

    #[test]
    fn what_comes_for_one_who_is_gone_is_dropped() {
        let outbox = Rc::new(Outbox::default());
        let ticket = outbox.ticket();
        outbox.close();
        assert!(ticket.is_void());
        ticket.reply(b"+1\r\n");
        assert_eq!(ready(&outbox), "");
    }
}
