//! A connection to a server that the commands of many clients share.
//!
//! ```text
//!   client ─ command ─▶ ┐                     ┌─▶ ticket ─▶ outbox of its client
//!   client ─ command ─▶ ├ one write a turn ─▶ │ replies, in order
//!   client ─ command ─▶ ┘                     └─▶ ticket ─▶ …
//! ```
//!
//! It is dialled when a command comes, and again after it was lost: what was provably not sent is sent then, and what was sent and not
//! answered gets an error that says so.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::keep::{Failure, Watch};
use super::reply::Ticket;
use super::scan::{Replies, Shape, put_command};
use super::secret::Auth;
use super::stream::{self, Outgoing, Rest};
use super::track;
use super::wait::{Busy, Silence, Waits};
use crate::net::Buf;
use crate::upstream::{Pool, Wire};

/// A server that has said nothing for so long may be busy with a script. One that is only far is asked over two connections then: no harm.
const LONG: Duration = Duration::from_millis(20);

/// What a connection begins with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Greeting {
    /// Who the server is told.
    pub auth: Option<Auth>,
    /// RESP3 is spoken.
    pub resp3: bool,
    /// The database.
    pub database: u32,
    /// The server says when what was read is not so any more.
    pub tracks: bool,
}

impl Greeting {
    /// The commands, behind AUTH.
    pub fn commands(&self) -> Vec<Vec<u8>> {
        let mut commands = Vec::new();
        let mut add = |words: &[&[u8]]| {
            let mut command = Vec::new();
            put_command(&mut command, words);
            commands.push(command);
        };
        if self.resp3 {
            add(&[b"HELLO", b"3"]);
        }
        if self.database > 0 {
            add(&[b"SELECT", self.database.to_string().as_bytes()]);
        }
        if self.tracks {
            add(&track::BEGIN);
        }
        commands
    }
}

/// A shared connection. Not shared with other threads.
#[derive(Debug)]
pub struct Lane {
    /// Of the server, for messages.
    name: Rc<str>,
    pool: Rc<Pool>,
    greeting: Greeting,
    waits: Waits,
    watch: Option<Rc<dyn Watch>>,
    state: RefCell<State>,
    /// Nobody may use it any more: it ends when all is answered.
    closing: Cell<bool>,
    /// Since when nothing has come though something is waited for.
    silent: Cell<Option<Instant>>,
}

#[derive(Debug, Default)]
struct State {
    out: Outgoing,
    waiting: VecDeque<Waiting>,
    /// What was marked since the module last asked (see [`Watch`]).
    marked: Vec<u16>,
    task: Option<Waker>,
    /// Clients that wait for room.
    crowd: Vec<Waker>,
    rest: Rest,
}

#[derive(Debug)]
struct Waiting {
    owed: Owed,
    /// Where its command begins.
    start: u64,
}

/// Whose a reply is.
#[derive(Debug)]
enum Owed {
    /// A client's.
    Reply(Ticket),
    /// The module's, of what was marked.
    Marks(Vec<u16>),
    /// Nobody's: it belongs to the command behind it.
    Nobody,
}

impl Owed {
    #[inline]
    fn is_of_values(&self) -> bool {
        matches!(self, Self::Reply(ticket) if ticket.is_of_values())
    }
}

impl State {
    fn watch(&mut self, cx: &Context<'_>) {
        if !self
            .task
            .as_ref()
            .is_some_and(|task| task.will_wake(cx.waker()))
        {
            self.task = Some(cx.waker().clone());
        }
    }
}

impl Lane {
    /// To the server of `pool`. Spawns the task that carries it.
    pub fn new(
        name: Rc<str>,
        pool: Rc<Pool>,
        greeting: Greeting,
        waits: Waits,
        watch: Option<Rc<dyn Watch>>,
    ) -> Rc<Self> {
        let lane = Rc::new(Self {
            name,
            pool,
            greeting,
            waits,
            watch,
            state: RefCell::default(),
            closing: Cell::new(false),
            silent: Cell::new(None),
        });
        drop(tokio::task::spawn_local(Rc::clone(&lane).live()));
        lane
    }

    /// There is room for another command. Otherwise the task of `cx` is woken when there is.
    pub fn has_room(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state.borrow_mut();
        let full = state.out.is_full(state.waiting.len());
        if full {
            state.crowd.push(cx.waker().clone());
        }
        !full
    }

    /// Sends a command (or several whose replies are one's: then the ticket is the last one's).
    #[inline]
    pub fn send(&self, command: &[u8], ticket: Ticket) {
        self.send_behind(&[], command, ticket);
    }

    /// The same, right behind another command, if any, whose reply nobody wants (`ASKING`).
    #[inline]
    pub fn send_behind(&self, lead: &[u8], command: &[u8], ticket: Ticket) {
        let state = &mut *self.state.borrow_mut();
        if state.rest.is_begun() {
            if let Some(why) = state.rest.why() {
                let line = format!("-ERR {why}\r\n");
                return ticket.fail(Failure::Unsent(line.as_bytes()));
            }
            state.rest.end();
        }
        if self.closing.get() {
            let line = format!("-ERR {} is not used any more\r\n", self.name);
            return ticket.fail(Failure::Unsent(line.as_bytes()));
        }
        if !lead.is_empty() {
            let (start, owed) = (state.out.end(), Owed::Nobody);
            state.out.put(lead);
            state.waiting.push_back(Waiting { owed, start });
        }
        let start = state.out.end();
        state.out.put(command);
        let owed = Owed::Reply(ticket);
        state.waiting.push_back(Waiting { owed, start });
        // Whoever carries it is awake while something waits to be sent.
        if state.out.unsent() == lead.len() + command.len()
            && let Some(task) = &state.task
        {
            task.wake_by_ref();
        }
    }

    /// Notes numbers of the module's own: what it asks behind the batch is told it with them.
    pub fn mark(&self, numbers: &[u16]) {
        let state = &mut *self.state.borrow_mut();
        let Some(watch) = &self.watch else { return };
        if self.closing.get() || state.rest.is_begun() {
            return watch.settled(numbers.to_vec(), None);
        }
        state.marked.extend_from_slice(numbers);
        if state.out.unsent() == 0
            && let Some(task) = &state.task
        {
            task.wake_by_ref();
        }
    }

    /// Ends it at once. What waits is given back where somebody wants it.
    pub fn retire(&self, why: &str) {
        self.closing.set(true);
        self.lost(why);
        if let Some(task) = &self.state.borrow().task {
            task.wake_by_ref();
        }
    }

    /// Ends it when all that waits is answered.
    pub fn close(&self) {
        self.closing.set(true);
        if let Some(task) = &self.state.borrow().task {
            task.wake_by_ref();
        }
    }

    /// What is on it may be a script that does not end soon.
    pub(super) fn is_stuck(&self) -> bool {
        self.silent
            .get()
            .is_some_and(|since| since.elapsed() >= LONG)
    }

    /// Commands that wait for a reply.
    pub fn waiting(&self) -> usize {
        self.state.borrow().waiting.len()
    }

    async fn live(self: Rc<Self>) {
        while poll_fn(|cx| self.poll_work(cx)).await {
            let watch = self.watch.as_deref();
            match open(&self.pool, &self.greeting, watch).await {
                Ok(wire) => {
                    self.state.borrow_mut().rest.forget();
                    let why = self.carry(wire).await;
                    self.silent.set(None);
                    self.lost(&why);
                }
                Err(why) => self.unreachable(&why),
            }
        }
    }

    /// Ready when there is something to send; false when there never will be.
    fn poll_work(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.state.borrow_mut();
        state.watch(cx);
        if !state.waiting.is_empty() || !state.marked.is_empty() {
            return Poll::Ready(true);
        }
        match self.closing.get() {
            true => Poll::Ready(false),
            false => Poll::Pending,
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
            let waits = self.waiting() > 0;
            if !waits && self.closing.get() {
                return Poll::Ready("it is not needed any more".to_owned());
            }
            let is_over = silence.is_over(cx, waits, heard);
            self.silent.set(silence.since());
            match is_over {
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
        if !state.marked.is_empty()
            && let Some(watch) = &self.watch
        {
            let owed = Owed::Marks(std::mem::take(&mut state.marked));
            let start = state.out.end();
            state.out.put(watch.behind());
            state.waiting.push_back(Waiting { owed, start });
        }
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
            let first = state.waiting.front();
            scan.note(first.is_some_and(|first| first.owed.is_of_values()));
            let Some((length, shape)) = scan.next(&bytes[taken..])? else {
                break;
            };
            let reply = &bytes[taken..taken + length];
            taken += length;
            if shape == Shape::Push {
                if self.greeting.tracks {
                    track::tell(&self.greeting, reply);
                }
                continue;
            }
            match state.waiting.pop_front().map(|waiting| waiting.owed) {
                Some(Owed::Reply(ticket)) => ticket.reply_of(reply, scan.ends()),
                Some(owed) => self.give(owed, Ok(reply)),
                None => return Err("it replied to nothing".to_owned()),
            }
        }
        buf.consume(taken);
        let first = state.waiting.front();
        state
            .out
            .answered(first.map_or(state.out.end(), |first| first.start));
        Ok(())
    }

    /// A reply, or why there is none.
    #[inline]
    fn give(&self, owed: Owed, reply: Result<&[u8], Failure<'_>>) {
        match (owed, reply) {
            (Owed::Reply(ticket), Ok(reply)) => ticket.reply(reply),
            (Owed::Reply(ticket), Err(failure)) => ticket.fail(failure),
            (Owed::Marks(marked), reply) => {
                if let Some(watch) = &self.watch {
                    watch.settled(marked, reply.ok());
                }
            }
            (Owed::Nobody, _) => {}
        }
    }

    /// The connection ended: what was sent gets an error, what was not is kept for the next one, unless the module takes it.
    fn lost(&self, why: &str) {
        if self.greeting.tracks {
            track::tell(&self.greeting, track::FORGET);
        }
        let state = &mut *self.state.borrow_mut();
        let sent = state.out.sent();
        let mut answered = 0;
        let all = self.watch.is_some() || self.closing.get();
        while let Some(first) = state.waiting.front()
            && (all || first.start < sent)
        {
            let waiting = state.waiting.pop_front().expect("it was looked at");
            let line = format!(
                "-ERR the connection to {} ended before it replied ({why}): what the command does may have been done\r\n",
                self.name
            );
            let failure = match waiting.start < sent {
                true => Failure::Lost(line.as_bytes()),
                false => Failure::Unsent(line.as_bytes()),
            };
            self.give(waiting.owed, Err(failure));
            answered += 1;
        }
        if all && !state.marked.is_empty() {
            let marked = std::mem::take(&mut state.marked);
            self.give(Owed::Marks(marked), Err(Failure::Unsent(b"")));
        }
        // From the first command of which nothing was sent.
        let first = state.waiting.front();
        let from = first.map_or(state.out.end(), |first| first.start);
        state.out.restart(from);
        if answered > 0 {
            tracing::warn!(
                server = &*self.name,
                why,
                answered,
                "a connection ended with commands on it"
            );
        }
    }

    /// It can't be dialled.
    fn unreachable(&self, why: &str) {
        let state = &mut *self.state.borrow_mut();
        let why = state.rest.begin(&self.name, why);
        let line = format!("-ERR {why}\r\n");
        if !state.marked.is_empty() {
            let marked = std::mem::take(&mut state.marked);
            self.give(Owed::Marks(marked), Err(Failure::Unsent(b"")));
        }
        for waiting in state.waiting.drain(..) {
            self.give(waiting.owed, Err(Failure::Unsent(line.as_bytes())));
        }
        state.out.clear();
        state.crowd.drain(..).for_each(Waker::wake);
    }
}

/// Opens a connection of its own, greeted. The error is one line.
pub(super) async fn open(
    pool: &Pool,
    greeting: &Greeting,
    watch: Option<&dyn Watch>,
) -> Result<Wire, String> {
    let mut wire = pool
        .connect_alone(None)
        .await
        .map_err(|error| error.to_string())?;
    let patience = pool.limits().connect_timeout;
    if let Some(auth) = &greeting.auth {
        tell(&mut wire, auth, patience).await?;
    }
    for command in greeting.commands() {
        let reply = ask(&mut wire, &command, patience).await?;
        if reply.first() == Some(&b'-') {
            let line = String::from_utf8_lossy(&reply[1..]);
            return Err(line.trim_end().to_owned());
        }
    }
    if let Some(watch) = watch {
        if let Some(command) = watch.first() {
            let reply = ask(&mut wire, command, patience).await?;
            if reply.first() == Some(&b'-') {
                let line = String::from_utf8_lossy(&reply[1..]);
                return Err(line.trim_end().to_owned());
            }
        }
        watch.accepts(&ask(&mut wire, watch.question(), patience).await?)?;
    }
    Ok(wire)
}

/// Says who asks; where the password has changed, with the new one.
async fn tell(wire: &mut Wire, auth: &Auth, patience: Duration) -> Result<(), String> {
    loop {
        let (user, password) = (auth.user(), auth.password());
        let mut command = Vec::new();
        match user.is_empty() {
            true => put_command(&mut command, &[b"AUTH", &*password]),
            false => put_command(&mut command, &[b"AUTH", user, &*password]),
        }
        let reply = ask(wire, &command, patience).await?;
        if reply.first() != Some(&b'-') {
            return Ok(());
        }
        if !auth.renew(&password) {
            let line = String::from_utf8_lossy(&reply[1..]);
            return Err(line.trim_end().to_owned());
        }
    }
}

/// Sends a command and waits for its reply, on a connection that nothing else is on.
pub(super) async fn ask(
    wire: &mut Wire,
    command: &[u8],
    patience: Duration,
) -> Result<Vec<u8>, String> {
    let mut scan = Replies::default();
    let find = |buf: &mut Buf| {
        while let Some((length, shape)) = scan.next(buf.filled())? {
            let reply = buf.filled()[..length].to_vec();
            buf.consume(length);
            if shape != Shape::Push {
                return Ok(Some(reply));
            }
        }
        Ok(None)
    };
    stream::exchange(wire, command, patience, find).await
}
