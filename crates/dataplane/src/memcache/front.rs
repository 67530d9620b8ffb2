//! Clients: their commands are read, sent where they belong, and answered in order.

use std::borrow::Cow;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self};
use std::rc::Rc;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::command::{Command, Commands, Found, Kind};
use super::join::{Same, Values};
use super::lane::{Node, Want};
use super::stats::{Stats, Version};
use super::tables::Table;
use crate::net::{Accepted, Guard, Serve, Worker};
use crate::resp::near::{MOST_UNREAD, MOST_WAITING, Near};
use crate::resp::{Join, Joins, Merge, RespLimits, Ticket};

/// All are out of use.
const NONE_LEFT: &[u8] = b"SERVER_ERROR no shard can be reached\r\n";

/// As memcached reads keys in base64.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decides for one worker. There is one server at least.
pub trait Router: 'static {
    /// Another command has come: a change of the servers is taken over now, and not before the next one.
    fn follow(&self);

    /// How many servers there are.
    fn count(&self) -> usize;

    /// It can have keys now.
    fn is_there(&self, at: usize) -> bool;

    /// Which of them has a key.
    fn place(&self, key: &[u8]) -> usize;

    /// The server; a command is sent to it.
    fn node(&self, at: usize) -> Rc<Node>;

    /// A command was refused, since it can't be done over several servers.
    fn refused(&self);

    /// The keys of the command that is sent now are to be told to `saw`.
    fn is_due(&self) -> bool;

    /// A key.
    fn saw(&self, key: &[u8]);
}

/// Serves the clients of one worker.
#[derive(Debug)]
pub struct Front<R> {
    router: R,
    limits: RespLimits,
    /// Room for where keys are.
    places: RefCell<Vec<usize>>,
}

impl<R: Router> Front<R> {
    /// With what `router` decides.
    pub fn new(router: R, limits: RespLimits) -> Rc<Self> {
        Rc::new(Self {
            router,
            limits,
            places: RefCell::default(),
        })
    }
}

impl<R: Router> Serve for Front<R> {
    async fn serve(self: Rc<Self>, accepted: Accepted) {
        let Accepted {
            mut socket,
            peer,
            worker,
            guard,
        } = accepted;
        if socket.watch().is_err() {
            return;
        }
        let silence = self.limits.client_timeout;
        let mut client = Client {
            front: self,
            near: Near::new(socket, worker.clock.timer(), silence),
            worker,
            scan: Commands::default(),
            ending: false,
            _guard: guard,
        };
        let ended = poll_fn(|cx| client.turn(cx)).await;
        client.near.outbox.close();
        if let Err(error) = ended
            && error.kind() == io::ErrorKind::Other
        {
            tracing::debug!(%peer, why = %error, "a client was cut");
        }
    }
}

/// A connection of a client.
struct Client<R> {
    front: Rc<Front<R>>,
    near: Near,
    worker: Rc<Worker>,
    scan: Commands,
    /// It is closed when all is answered.
    ending: bool,
    _guard: Guard,
}

impl<R: Router> Client<R> {
    /// Ready when the client is gone, or has been told all.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.near.outbox.watch(cx);
        if self.near.may_wait(cx) {
            return Poll::Pending;
        }
        loop {
            let flushed = self.near.flush(cx)?;
            if self.near.outbox.bytes() as u64 > self.front.limits.max_reply_size.0 {
                let why = "it does not take its replies (--max-reply-size)";
                return Poll::Ready(Err(io::Error::other(why)));
            }
            let waiting = self.near.outbox.waiting();
            if self.ending {
                return match waiting == 0 && flushed {
                    true => Poll::Ready(Ok(())),
                    false => Poll::Pending,
                };
            }
            if waiting >= MOST_WAITING || self.near.outbox.bytes() >= MOST_UNREAD {
                return Poll::Pending;
            }
            // What is there first; then what comes.
            if self.near.input.is_some() {
                if !self.take(cx) {
                    return Poll::Pending;
                }
                if self.ending || self.near.outbox.bytes() > 0 {
                    continue;
                }
                if self.near.outbox.waiting() >= MOST_WAITING {
                    return Poll::Pending;
                }
            }
            if self.worker.draining()
                && self.near.outbox.waiting() == 0
                && self.near.input.is_none()
            {
                return Poll::Ready(Ok(()));
            }
            match self.near.read(cx) {
                // It sends no more, and may still read.
                Poll::Ready(Ok(0)) => self.ending = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // Armed only where silence is bounded; it also tells that the process drains.
                Poll::Pending => {
                    return match self.near.is_over(cx) {
                        true => {
                            let why = "it was silent (--client-timeout)";
                            Poll::Ready(Err(io::Error::other(why)))
                        }
                        false => Poll::Pending,
                    };
                }
            }
        }
    }

    /// Takes the commands that are there. False when the way of one is full.
    fn take(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(mut buf) = self.near.input.take() else {
            return true;
        };
        let most = usize::try_from(self.front.limits.max_command_size.0).unwrap_or(usize::MAX);
        let (mut taken, mut goes) = (0, true);
        while !self.ending && self.near.outbox.waiting() < MOST_WAITING {
            let bytes = &buf.filled()[taken..];
            match self.scan.next(bytes, most) {
                Found::Nothing => break,
                Found::Skip(length) => taken += length,
                Found::Answer(length, line) => {
                    self.near.outbox.answer(line);
                    taken += length;
                }
                Found::End(line) => {
                    self.near.outbox.answer(line);
                    self.ending = true;
                }
                Found::Command(command) if command.kind == Kind::Quit => self.ending = true,
                Found::Command(command) => {
                    goes = self.send(bytes, command, cx);
                    if !goes {
                        self.scan.reset();
                        break;
                    }
                    taken += command.length;
                }
            }
        }
        if !self.ending {
            buf.consume(taken);
            if !buf.is_empty() {
                self.near.input = Some(buf);
            }
        }
        goes
    }

    /// False when its way is full.
    fn send(&self, bytes: &[u8], command: Command, cx: &Context<'_>) -> bool {
        let router = &self.front.router;
        router.follow();
        let words = self.scan.words();
        let word = |at: usize| {
            let range = words.get(at).cloned();
            range.map_or(&[][..], |range| &bytes[range])
        };
        let several = router.count() > 1;
        let is_left = (0..router.count()).any(|at| router.is_there(at));
        if !is_left && command.kind != Kind::Noop {
            let line: &[u8] = if command.hidden { b"" } else { NONE_LEFT };
            self.near.outbox.answer(line);
            return true;
        }
        let key = |at: usize| match command.base64.then(|| BASE64.decode(word(at))) {
            Some(Ok(key)) => Cow::Owned(key),
            Some(Err(_)) | None => Cow::Borrowed(word(at)),
        };
        let place = |at: usize| router.place(&key(at));
        let table = || {
            let words: Vec<&[u8]> = (0..words.len()).map(word).collect();
            Table::of(&words)
        };
        let at = match command.kind {
            Kind::Get(first) if several && words.len() > first + 1 => {
                return self.get(bytes, first, cx);
            }
            Kind::Get(first) => place(first),
            Kind::Store | Kind::Key | Kind::Meta | Kind::MetaStore => place(1),
            Kind::Noop => {
                self.near.outbox.answer(b"MN\r\n");
                return true;
            }
            Kind::All if several => {
                let hidden = command.hidden;
                return self.all(bytes, command, Box::new(Same { hidden }), cx);
            }
            Kind::Version if several => return self.all(bytes, command, Box::new(Version), cx),
            Kind::Stats if several && words.len() == 1 => {
                return self.all(bytes, command, Box::new(Stats), cx);
            }
            Kind::Stats if several && is_told(word(1), word(2)) => {
                return self.all(bytes, command, Box::new(Same { hidden: false }), cx);
            }
            Kind::Stats if several && let Some(table) = table() => {
                return self.all(bytes, command, Box::new(table), cx);
            }
            Kind::Never => {
                return self.refuse(
                    command,
                    word(0),
                    "can't be done on a connection that is shared",
                );
            }
            // The server would send what it likes until its end.
            Kind::Admin if matches!(word(1), b"metadump" | b"mgdump") => {
                return self.refuse(
                    command,
                    word(0),
                    "of all keys has to be asked of its server itself",
                );
            }
            Kind::Admin if several && is_setting(word(0), word(1)) => {
                let hidden = command.hidden;
                return self.all(bytes, command, Box::new(Same { hidden }), cx);
            }
            Kind::Stats if several => {
                let name = [word(0), word(1)].join(&b' ');
                return self.refuse(
                    command,
                    &name,
                    "is about one server, and there are several shards",
                );
            }
            Kind::Admin if several => {
                return self.refuse(
                    command,
                    word(0),
                    "is about one server, and there are several shards",
                );
            }
            Kind::All | Kind::Version | Kind::Stats | Kind::Admin | Kind::Quit => 0,
        };
        let node = router.node(at);
        if !node.lane().has_room(cx) {
            return false;
        }
        if command.needs_meta() {
            match node.lane().knows_meta(cx) {
                Some(true) => {}
                Some(false) => {
                    self.near.outbox.answer(b"ERROR\r\n");
                    return true;
                }
                None => return false,
            }
        }
        let want = match (command.hidden, command.quiet) {
            (true, _) => Want::Nothing,
            (false, true) => Want::Quiet,
            (false, false) => Want::All,
        };
        if let Some(keys) = command.kind.keys(words.len())
            && router.is_due()
        {
            keys.for_each(|at| router.saw(&key(at)));
        }
        let ticket = self.near.outbox.ticket();
        match said(bytes, command) {
            None => node.lane().send(&[&bytes[..command.length]], want, ticket),
            Some(parts) => node.lane().send(&parts, want, ticket),
        }
        true
    }

    fn refuse(&self, command: Command, name: &[u8], why: &str) -> bool {
        self.front.router.refused();
        if command.hidden {
            self.near.outbox.answer(b"");
            return true;
        }
        let name = String::from_utf8_lossy(name);
        let line = format!("SERVER_ERROR '{name}' {why}\r\n");
        self.near.outbox.answer(line.as_bytes());
        true
    }

    /// Asks each server for its own keys.
    fn get(&self, bytes: &[u8], first: usize, cx: &Context<'_>) -> bool {
        let router = &self.front.router;
        let (words, keys) = self.scan.words().split_at(first);
        let places = &mut *self.front.places.borrow_mut();
        places.clear();
        places.extend(keys.iter().map(|key| router.place(&bytes[key.clone()])));
        // Which servers, in the order in which their keys come, and what each is asked.
        let mut parts: Vec<(usize, Vec<u8>)> = Vec::new();
        let begin = words.last().map_or(0, |word| word.end);
        for (key, at) in keys.iter().zip(places.iter_mut()) {
            let known = parts.iter().position(|(place, _)| place == at);
            let part = known.unwrap_or_else(|| {
                parts.push((*at, bytes[..begin].to_vec()));
                parts.len() - 1
            });
            parts[part].1.push(b' ');
            parts[part].1.extend_from_slice(&bytes[key.clone()]);
            *at = part;
        }
        let nodes: Vec<_> = parts.iter().map(|(at, _)| router.node(*at)).collect();
        if !nodes.iter().all(|node| node.lane().has_room(cx)) {
            return false;
        }
        if router.is_due() {
            keys.iter().for_each(|key| router.saw(&bytes[key.clone()]));
        }
        if let [node] = nodes.as_slice() {
            let ticket = self.near.outbox.ticket();
            node.lane().send(&[&parts[0].1, b"\r\n"], Want::All, ticket);
            return true;
        }
        let end = keys.last().map_or(0, |key| key.end);
        let values = Values {
            line: bytes[..end].to_vec(),
            keys: keys.iter().cloned().zip(places.iter().copied()).collect(),
        };
        let tickets = self.tickets(Box::new(values), nodes.len());
        for ((node, ticket), (_, line)) in nodes.iter().zip(tickets).zip(&parts) {
            node.lane().send(&[line, b"\r\n"], Want::All, ticket);
        }
        true
    }

    /// The same to all that are there.
    fn all(&self, bytes: &[u8], command: Command, joins: Box<dyn Joins>, cx: &Context<'_>) -> bool {
        let router = &self.front.router;
        let there = (0..router.count()).filter(|at| router.is_there(*at));
        let nodes: Vec<_> = there.map(|at| router.node(at)).collect();
        if !nodes.iter().all(|node| node.lane().has_room(cx)) {
            return false;
        }
        if command.needs_meta() {
            let known = nodes.iter().map(|node| node.lane().knows_meta(cx));
            match known.collect::<Option<Vec<bool>>>() {
                None => return false,
                Some(known) if known.contains(&false) => {
                    self.near.outbox.answer(b"ERROR\r\n");
                    return true;
                }
                Some(_) => {}
            }
        }
        let want = if command.quiet {
            Want::Quiet
        } else {
            Want::All
        };
        let tickets = self.tickets(joins, nodes.len());
        for (node, ticket) in nodes.iter().zip(tickets) {
            let line = &bytes[..command.said];
            node.lane().send(&[line, b"\r\n"], want, ticket);
        }
        true
    }

    fn tickets(&self, joins: Box<dyn Joins>, parts: usize) -> impl Iterator<Item = Ticket> {
        let count = u32::try_from(parts).unwrap_or(u32::MAX);
        let join = Join::new(Merge::By(joins), parts);
        self.near.outbox.tickets(join, count)
    }
}

/// A kind of `stats` that does something, at each server.
fn is_told(what: &[u8], how: &[u8]) -> bool {
    match what {
        b"reset" | b"sizes_enable" | b"sizes_disable" => true,
        b"detail" => matches!(how, b"on" | b"off"),
        _ => false,
    }
}

/// What is set for all servers alike.
fn is_setting(name: &[u8], what: &[u8]) -> bool {
    match name {
        b"lru" | b"lru_crawler" => true,
        b"slabs" => what == b"automove",
        _ => false,
    }
}

/// What is sent of a command, where that is not all of it.
fn said(bytes: &[u8], command: Command) -> Option<[&[u8]; 3]> {
    let ending = &bytes[command.said..command.head];
    let whole = matches!(ending, b"\r\n" | b"\n");
    (!whole).then(|| {
        let value = &bytes[command.head..command.length];
        [&bytes[..command.said], b"\r\n", value]
    })
}
