//! CLIENT: who a client is, and what it asks of others.
//!
//! Servers know podkit's connections only. So ids and names of clients are podkit's own, and what one client asks of another by such an id
//! goes from task to task (see [`calls`](super::calls)); what names no client of podkit's goes to the server, and is about its connections.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::calls::{Call, Callee, What, call, is_ours};
use super::commands::Words;
use super::front::Client;
use super::lane::Greeting;
use super::node::Node;
use super::reply::Mute;
use super::route::Router;
use super::scan::{integer, put_bulk};
use super::session::{Taken, greeted};
use super::track::Tracker;
use crate::net::Peer;

/// What the server is asked on a connection of the client's own, to know by which id it knows the client there.
pub(super) const ID: &[u8] = b"*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n";
/// As Redis says it to one who has not asked to be told of some keys only, which is not there over several.
const NO_CACHING: &[u8] = b"-ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled\r\n";
/// A client that does not wait, or is not there, is not made to wait no more.
const NOT_BLOCKED: &[u8] = b":0\r\n";

/// A connection of the client's own, as its server knows it.
#[derive(Debug, Clone)]
pub(super) struct There {
    pub(super) node: Rc<Node>,
    /// The reply to CLIENT ID.
    pub(super) said: Vec<u8>,
}

impl There {
    /// Answers a call for CLIENT UNBLOCK with what the server says to it.
    fn unblock(&self, how: &'static str, greeting: Option<Greeting>, call: Box<Call>) {
        let Some(id) = integer(&self.said) else {
            let line = String::from_utf8_lossy(&self.said).into_owned();
            let line = line.trim_start_matches('-').trim_end();
            let reply = format!("-ERR the server does not say which client it is: {line}\r\n");
            return call.reply(reply.into_bytes());
        };
        let node = Rc::clone(&self.node);
        drop(tokio::task::spawn_local(async move {
            let (greeting, id) = (greeting.as_ref(), id.to_string());
            let words = ["CLIENT", "UNBLOCK", &id, how];
            let reply = node.ask_as(greeting, &words).await;
            call.reply(reply.unwrap_or_else(|why| format!("-ERR {why}\r\n").into_bytes()));
        }));
    }
}

/// A client, for others.
#[derive(Debug)]
pub(super) struct Who {
    peer: Peer,
    since: Instant,
    /// CLIENT SETNAME.
    pub(super) name: Vec<u8>,
    /// Since it was told its id.
    callee: Option<Callee>,
    /// A call that can't be answered yet.
    later: Option<Box<Call>>,
}

/// What a client waits on.
#[derive(Debug, Clone, Copy)]
pub(super) enum On<'a> {
    /// Nothing that others could end.
    Nothing,
    /// A command on its own connection.
    Server(&'a There),
    /// The same, before it is known as whom the server knows it.
    Unknown,
    /// A command that is at no server yet.
    Podkit,
}

/// What others have told a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// To end.
    End,
    /// To wait no more, as TIMEOUT or ERROR does.
    Unblock(&'static str),
}

impl Who {
    pub(super) fn new(peer: Peer) -> Self {
        Self {
            peer,
            since: Instant::now(),
            name: Vec::new(),
            callee: None,
            later: None,
        }
    }

    /// CLIENT ID: from now on it can be called.
    pub(super) fn id(&mut self) -> u64 {
        self.callee.get_or_insert_with(Callee::new).id
    }

    /// That id is its own.
    fn is(&self, id: u64) -> bool {
        self.callee.as_ref().is_some_and(|callee| callee.id == id)
    }

    /// It was told its id.
    pub(super) fn is_known(&self) -> bool {
        self.callee.is_some()
    }

    /// Its line of CLIENT LIST. `flags`: as there.
    fn line(&mut self, greeting: &Greeting, flags: char) -> Vec<u8> {
        let user = match &greeting.auth {
            Some(auth) if !auth.user().is_empty() => String::from_utf8_lossy(auth.user()),
            _ => "default".into(),
        };
        format!(
            "id={} addr={} name={} age={} flags={flags} db={} user={user} resp={}\n",
            self.id(),
            self.peer,
            String::from_utf8_lossy(&self.name),
            self.since.elapsed().as_secs(),
            greeting.database,
            if greeting.resp3 { 3 } else { 2 },
        )
        .into_bytes()
    }

    /// Answers what others ask of it, which `waits` on this.
    pub(super) fn told(
        &mut self,
        greeted: impl Fn() -> Greeting,
        waits: On<'_>,
        cx: &mut Context<'_>,
    ) -> Option<Told> {
        while let Some(callee) = &mut self.callee {
            let mut call = match self.later.take() {
                Some(call) => call,
                None => match callee.poll(cx) {
                    Poll::Ready(call) => call,
                    Poll::Pending => return None,
                },
            };
            match (std::mem::replace(&mut call.what, What::Kill), waits) {
                (What::Kill, _) => {
                    call.reply(b":1\r\n".to_vec());
                    return Some(Told::End);
                }
                (What::Describe, waits) => {
                    let flags = if matches!(waits, On::Nothing) {
                        'N'
                    } else {
                        'b'
                    };
                    call.reply(self.line(&greeted(), flags));
                }
                (What::Unblock(how, greeting), On::Server(there)) => {
                    there.unblock(how, greeting, call);
                }
                (What::Unblock(how, _), On::Podkit) => {
                    call.reply(b":1\r\n".to_vec());
                    return Some(Told::Unblock(how));
                }
                (What::Unblock(..), On::Nothing) => call.reply(NOT_BLOCKED.to_vec()),
                (what @ What::Unblock(..), On::Unknown) => {
                    call.what = what;
                    self.later = Some(call);
                    return None;
                }
            }
        }
        None
    }

    /// The same of one that waits on nothing others could end, or on its own connection. True: it is to end.
    pub(super) fn is_killed(
        &mut self,
        greeted: impl Fn() -> Greeting,
        there: Option<&There>,
        cx: &mut Context<'_>,
    ) -> bool {
        let waits = there.map_or(On::Nothing, On::Server);
        self.told(greeted, waits, cx).is_some()
    }
}

impl<R: Router> Client<R> {
    /// Others have told it something.
    pub(super) fn told(&mut self, waits: On<'_>, cx: &mut Context<'_>) -> Option<Told> {
        let (front, greeting) = (&self.front, &self.greeting);
        self.who
            .told(|| greeted(&front.router, greeting.as_ref()), waits, cx)
    }

    /// Others have ended it; it waits on nothing.
    pub(super) fn is_killed(&mut self, cx: &mut Context<'_>) -> bool {
        self.told(On::Nothing, cx).is_some()
    }

    fn line(&mut self) -> Vec<u8> {
        let greeting = greeted(&self.front.router, self.greeting.as_ref());
        self.who.line(&greeting, 'N')
    }

    /// Asks another client. It is answered itself meanwhile: the other one may be asking it.
    async fn ask_client(&mut self, id: u64, what: What) -> Option<Vec<u8>> {
        let mut asked = pin!(call(id, what));
        let (reply, killed) = poll_fn(|cx| {
            let killed = self.is_killed(cx);
            match asked.as_mut().poll(cx) {
                Poll::Ready(reply) => Poll::Ready((reply, killed)),
                Poll::Pending if killed => Poll::Ready((None, true)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        self.ending |= killed;
        reply
    }

    pub(super) async fn client(&mut self, taken: Taken) -> io::Result<()> {
        let request = taken.request();
        let words = request.words;
        let is = |word: &str, count: usize| words.is(1, word.as_bytes()) && words.len() == count;
        let stays = ["reply", "tracking", "caching", "no-evict", "no-touch"];
        if is("setname", 3) {
            self.set_name(words.get(2).unwrap_or_default());
        } else if is("getname", 2) {
            let resp3 = self.greeting.as_ref().is_some_and(|one| one.resp3);
            let mut out = Vec::new();
            match (self.who.name.is_empty(), resp3) {
                (false, _) => put_bulk(&mut out, &self.who.name),
                (true, true) => out.extend_from_slice(b"_\r\n"),
                (true, false) => out.extend_from_slice(b"$-1\r\n"),
            }
            self.near.outbox.answer(&out);
        } else if is("setinfo", 4) {
            // The name and version of the client's library: for CLIENT LIST of the server, where our own connections stand.
            self.near.outbox.answer(b"+OK\r\n");
        } else if is("id", 2) {
            let id = self.who.id();
            self.near.outbox.answer(format!(":{id}\r\n").as_bytes());
        } else if is("info", 2) {
            let mut out = Vec::new();
            put_bulk(&mut out, &self.line());
            self.near.outbox.answer(&out);
        } else if is("reply", 3) && !self.front.router.is_single() {
            self.reply(&words);
        } else if words.is(1, b"tracking") && !self.front.router.is_single() {
            self.track(&words);
        } else if words.is(1, b"caching") && !self.front.router.is_single() {
            self.near.outbox.answer(NO_CACHING);
        } else if stays.iter().any(|word| words.is(1, word.as_bytes())) {
            return self.stay(&taken).await;
        } else if let Some(answer) = self.by_id(&words).await {
            self.near.outbox.answer(&answer);
        } else if !self.front.router.is_single()
            && (words.is(1, b"pause") || words.is(1, b"unpause"))
        {
            self.near.outbox.answer(
                b"-ERR CLIENT PAUSE and UNPAUSE are about one server, and there are several shards\r\n",
            );
        } else if words.is(1, b"unpause") {
            // What is paused is on the shared connection, and keeps all that is behind it waiting.
            return self.private(taken).await;
        } else {
            let lane = self.node().lane(self.greeting.as_ref(), self.way.get());
            lane.send(request.bytes, self.near.outbox.ticket());
        }
        Ok(())
    }

    /// CLIENT REPLY, over several servers: they reply, and the client is not told.
    fn reply(&self, words: &Words<'_>) {
        let outbox = &self.near.outbox;
        if words.is(2, b"on") {
            outbox.mute(Mute::Nobody);
            outbox.answer(b"+OK\r\n");
        } else if words.is(2, b"off") {
            outbox.mute(Mute::All);
        } else if words.is(2, b"skip") {
            if !outbox.is_silent() {
                outbox.mute(Mute::Next);
            }
        } else {
            outbox.answer(b"-ERR syntax error\r\n");
        }
    }

    /// CLIENT TRACKING, over several servers.
    fn track(&mut self, words: &Words<'_>) {
        let outbox = &self.near.outbox;
        let (on, off) = (words.is(2, b"on"), words.is(2, b"off"));
        if !on && !off {
            return outbox.answer(b"-ERR syntax error\r\n");
        }
        if words.len() > 3 {
            return outbox.answer(
                b"-ERR over several shards CLIENT TRACKING has no options: expected ON or OFF alone\r\n",
            );
        }
        if on && !self.speaks_resp3() {
            return outbox.answer(
                b"-ERR over several shards CLIENT TRACKING is for RESP3: expected HELLO 3 before it\r\n",
            );
        }
        let greeting = Greeting {
            tracks: on,
            ..greeted(&self.front.router, self.greeting.as_ref())
        };
        let mut hears = self.hears.take().unwrap_or_default();
        hears.track(None);
        if on {
            hears.begin(&self.front.router);
            hears.track(Some(Tracker::new(greeting.clone(), outbox)));
        }
        self.hears = (!hears.is_empty()).then_some(hears);
        self.greeting = Some(greeting);
        outbox.answer(b"+OK\r\n");
    }

    /// What connections of its own begin with: nothing is tracked there, since they end.
    pub(super) fn alone(&self) -> Option<Greeting> {
        let greeting = self.greeting.clone()?;
        Some(Greeting {
            tracks: false,
            ..greeting
        })
    }

    fn set_name(&mut self, name: &[u8]) {
        const ODD: &[u8] =
            b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n";
        if name.iter().any(|byte| !(b'!'..=b'~').contains(byte)) {
            return self.near.outbox.answer(ODD);
        }
        self.who.name = name.to_vec();
        self.near.outbox.answer(b"+OK\r\n");
    }

    /// The reply to what names clients of podkit's. None: it is for the server.
    async fn by_id(&mut self, words: &Words<'_>) -> Option<Vec<u8>> {
        if words.is(1, b"unblock") && (3..=4).contains(&words.len()) {
            let id = number(words, 2).filter(|id| is_ours(*id))?;
            let how = match words.get(3) {
                None => "TIMEOUT",
                Some(_) if words.is(3, b"timeout") => "TIMEOUT",
                Some(_) if words.is(3, b"error") => "ERROR",
                // The server knows how to say it.
                Some(_) => return None,
            };
            let what = What::Unblock(how, self.greeting.clone());
            let reply = match self.who.is(id) {
                true => None,
                false => self.ask_client(id, what).await,
            };
            return Some(reply.unwrap_or_else(|| NOT_BLOCKED.to_vec()));
        }
        if words.is(1, b"list") && words.is(2, b"id") && words.len() > 3 {
            let mut lines = Vec::new();
            for at in 3..words.len() {
                let id = number(words, at).filter(|id| is_ours(*id))?;
                match self.who.is(id) {
                    true => lines.extend(self.line()),
                    false => lines.extend(
                        self.ask_client(id, What::Describe)
                            .await
                            .into_iter()
                            .flatten(),
                    ),
                }
            }
            let mut out = Vec::new();
            put_bulk(&mut out, &lines);
            return Some(out);
        }
        if words.is(1, b"kill") {
            let at = (2..words.len()).find(|at| words.is(*at, b"id"))?;
            let id = number(words, at + 1).filter(|id| is_ours(*id))?;
            let skips_me = words.len() == 4 || words.is(5, b"yes");
            let told = match words.len() {
                4 => at == 2,
                6 => {
                    at == 2 && words.is(4, b"skipme") && (words.is(5, b"yes") || words.is(5, b"no"))
                }
                _ => false,
            };
            if !told {
                let line =
                    b"-ERR of podkit's clients CLIENT KILL knows ID and SKIPME only, ID first\r\n";
                return Some(line.to_vec());
            }
            let reply = match self.who.is(id) {
                true if skips_me => None,
                true => {
                    self.ending = true;
                    Some(b":1\r\n".to_vec())
                }
                false => self.ask_client(id, What::Kill).await,
            };
            return Some(reply.unwrap_or_else(|| b":0\r\n".to_vec()));
        }
        None
    }
}

fn number(words: &Words<'_>, at: usize) -> Option<u64> {
    std::str::from_utf8(words.get(at)?).ok()?.parse().ok()
}

/// Puts podkit's id of the client in place of the server's in the reply to HELLO.
pub(super) fn own_id(reply: &[u8], id: u64) -> Vec<u8> {
    const FIELD: &[u8] = b"$2\r\nid\r\n:";
    let Some(at) = reply.windows(FIELD.len()).position(|part| part == FIELD) else {
        return reply.to_vec();
    };
    let (before, rest) = reply.split_at(at + FIELD.len());
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    [before, id.to_string().as_bytes(), &rest[digits..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::Auth;

    #[test]
    fn hello_says_podkits_id() {
        let hello = b"%7\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:17\r\n$4\r\nmode\r\n";
        let own = b"%7\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1099\r\n$4\r\nmode\r\n";
        assert_eq!(own_id(hello, 1099), own);
        assert_eq!(own_id(b"-NOPROTO no\r\n", 1), b"-NOPROTO no\r\n");
    }

    #[test]
    fn a_client_is_described_as_redis_does() {
        let mut who = Who::new(Peer::Ip("127.0.0.1:5000".parse().unwrap()));
        who.name = b"shop".to_vec();
        let greeting = Greeting {
            auth: Some(Auth::Client((b"ann".to_vec(), b"secret".to_vec()))),
            resp3: true,
            database: 3,
            tracks: false,
        };
        let id = who.id();
        assert_eq!(
            String::from_utf8(who.line(&greeting, 'b')).unwrap(),
            format!("id={id} addr=127.0.0.1:5000 name=shop age=0 flags=b db=3 user=ann resp=3\n")
        );
    }
}
