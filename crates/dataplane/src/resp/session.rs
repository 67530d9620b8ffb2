//! Commands about the connection itself: who the client is, what it speaks, which database it wants.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::task::Poll;

use super::client::{ID, There, own_id};
use super::commands::Words;
use super::front::Client;
use super::hearing::put;
use super::lane::{Greeting, ask};
use super::names::find;
use super::node::Node;
use super::reply::Mute;
use super::route::{Request, Router};
use super::scan::{Bounds, Commands, Found};
use super::secret::{Auth, Credentials};
use crate::net::{Transport, tunnel};

/// A command that was taken out of the input.
pub(super) struct Taken {
    pub(super) bytes: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

impl Taken {
    /// A command as a client sends it, which was read once.
    pub(super) fn again(bytes: &[u8]) -> Self {
        let (mut scan, bounds) = (
            Commands::default(),
            Bounds {
                command_bytes: usize::MAX,
            },
        );
        let found = scan.next(bytes, bounds);
        debug_assert_eq!(found, Ok(Found::Command(bytes.len())));
        Self {
            ranges: scan.args().to_vec(),
            bytes: bytes.to_vec(),
        }
    }

    pub(super) fn request(&self) -> Request<'_> {
        let words = Words::new(&self.bytes, &self.ranges);
        Request {
            bytes: &self.bytes,
            words,
            command: words.get(0).and_then(find),
        }
    }
}

impl<R: Router> Client<R> {
    /// The next command of the input, if all of it is there.
    pub(super) fn next(&mut self) -> Result<Option<Taken>, &'static str> {
        let Some(buf) = &mut self.near.input else {
            return Ok(None);
        };
        let taken = match self.scan.next(buf.filled(), self.front.bounds())? {
            Found::Nothing => return Ok(None),
            Found::Command(length) => {
                let taken = Taken {
                    bytes: buf.filled()[..length].to_vec(),
                    ranges: self.scan.args().to_vec(),
                };
                buf.consume(length);
                taken
            }
            Found::Inline(length, words) => {
                let mut bytes = Vec::new();
                super::scan::put_command(&mut bytes, &words);
                buf.consume(length);
                let mut scan = super::scan::Commands::default();
                scan.next(&bytes, self.front.bounds())?;
                Taken {
                    ranges: scan.args().to_vec(),
                    bytes,
                }
            }
        };
        self.scan.reset();
        if buf.is_empty() {
            self.near.input = None;
        }
        Ok(Some(taken))
    }

    /// Does the first command of the input, which has to be alone; nothing is waited for.
    pub(super) async fn special(&mut self) -> io::Result<()> {
        let Ok(Some(taken)) = self.next() else {
            return Ok(());
        };
        let request = taken.request();
        self.front.router.taken(&request);
        let words = request.words;
        let name = request.command.map_or("", |command| command.name);
        if self.only_hears() && self.is_refused(&request) {
            return Ok(());
        }
        match name {
            "quit" => {
                self.near.outbox.answer(b"+OK\r\n");
                self.ending = true;
            }
            "reset" => {
                self.greeting = None;
                self.hears = None;
                self.who.name.clear();
                self.near.outbox.mute(Mute::Nobody);
                self.near.outbox.answer(b"+RESET\r\n");
            }
            "select" | "auth" => {
                match name {
                    "select" => self.select(&request).await,
                    _ => self.auth(&request).await,
                }
                let tracker = self.hears.as_ref().and_then(|hears| hears.tracker());
                if let (Some(tracker), Some(greeting)) = (tracker, &self.greeting) {
                    tracker.greeted(greeting);
                }
            }
            "hello" if self.hears.is_some() => {
                let line =
                    b"-ERR HELLO can't be done while messages of several servers are heard\r\n";
                self.near.outbox.answer(line);
            }
            "hello" => self.hello(&request).await,
            "client" => return self.client(taken).await,
            "readonly" | "readwrite" | "asking" => {
                self.near
                    .outbox
                    .answer(b"-ERR This instance has cluster support disabled\r\n");
            }
            "unwatch" => self.near.outbox.answer(b"+OK\r\n"),
            "exec" => self.near.outbox.answer(b"-ERR EXEC without MULTI\r\n"),
            "discard" => self.near.outbox.answer(b"-ERR DISCARD without MULTI\r\n"),
            _ if self.listens(name) => return self.listen(&taken).await,
            "subscribe" | "psubscribe" | "ssubscribe" | "monitor" | "sync" | "psync" => {
                return self.stay(&taken).await;
            }
            "unsubscribe" | "punsubscribe" | "sunsubscribe" => self.unsubscribed(name, &words),
            _ => return self.private(taken).await,
        }
        Ok(())
    }

    /// The client's connection becomes one to a server, for good: messages come on it whenever they like.
    pub(super) async fn stay(&mut self, taken: &Taken) -> io::Result<()> {
        let request = taken.request();
        let router = &self.front.router;
        let name = request.command.map_or("", |command| command.name);
        if !router.is_single() {
            let line = format!("-ERR '{name}' can't be done over several shards\r\n");
            self.near.outbox.answer(line.as_bytes());
            return Ok(());
        }
        let node = match router.stays(&request) {
            Ok(node) => node.unwrap_or_else(|| router.first()),
            Err(reply) => {
                self.near.outbox.answer(&reply);
                return Ok(());
            }
        };
        let opening = router.open(node, self.alone());
        let (node, mut wire) = match self.while_called(false, opening).await {
            Ok(Ok(opened)) => opened,
            Err(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
            Ok(Err(why)) => {
                self.near
                    .outbox
                    .answer(format!("-ERR {why}\r\n").as_bytes());
                return Ok(());
            }
        };
        let mut ahead = crate::net::Buf::small();
        ahead.put(&taken.bytes);
        if let Some(rest) = self.near.input.take() {
            ahead.put(rest.filled());
        }
        // Others may know it by podkit's id.
        let there = match self.who.is_known() {
            false => None,
            true => Some(There {
                said: ask(&mut wire, ID, node.patience())
                    .await
                    .unwrap_or_default(),
                node: Rc::clone(&node),
            }),
        };
        let forever = std::time::Duration::from_secs(365 * 24 * 3600);
        drop(poll_fn(|cx| Poll::Ready(self.near.flush(cx))).await);
        let (front, greeting, who) = (&self.front, self.greeting.as_ref(), &mut self.who);
        let killed = poll_fn(|cx| {
            let greeted = || greeted(&front.router, greeting);
            match who.is_killed(greeted, there.as_ref(), cx) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        });
        let (socket, worker) = (&mut self.near.socket, &self.worker);
        let passed = tunnel(socket, Some(ahead), &mut wire, None, worker, forever);
        let ended = tokio::select! {
            ended = passed => ended.map(drop),
            // It would speak with a server that is not the right one any more.
            () = node.retirement() => Ok(()),
            () = killed => Ok(()),
        };
        wire.abort();
        self.ending = true;
        ended
    }

    /// There is nothing to unsubscribe from.
    fn unsubscribed(&mut self, name: &str, words: &Words<'_>) {
        let (resp3, mut out) = (self.speaks_resp3(), Vec::new());
        if words.len() == 1 {
            put(&mut out, resp3, name, None, 0);
        }
        let channels = words.iter().skip(1);
        channels.for_each(|channel| put(&mut out, resp3, name, Some(channel), 0));
        self.near.outbox.say(&out);
    }

    pub(super) fn speaks_resp3(&self) -> bool {
        let greeting = self.greeting.as_ref();
        greeting.is_some_and(|greeting| greeting.resp3)
    }

    pub(super) fn node(&self) -> Rc<Node> {
        self.front.router.first()
    }

    fn greeted(&self) -> Greeting {
        greeted(&self.front.router, self.greeting.as_ref())
    }

    /// Asks the server itself, on a connection that begins with `greeting`; the reply is the client's. True when it is no error.
    async fn try_out(&mut self, greeting: &Greeting, request: &Request<'_>) -> bool {
        let is_hello = request.words.is(0, b"hello");
        let opening = self.front.router.open(self.node(), Some(greeting.clone()));
        let asked = async {
            let (node, mut wire) = opening.await?;
            ask(&mut wire, request.bytes, node.patience()).await
        };
        let asked = match self.while_called(false, asked).await {
            Ok(asked) => asked,
            Err(_) => {
                self.ending = true;
                return false;
            }
        };
        match asked {
            Ok(reply) => {
                match is_hello {
                    true => {
                        let id = self.who.id();
                        self.near.outbox.answer(&own_id(&reply, id));
                    }
                    false => self.near.outbox.answer(&reply),
                }
                !matches!(reply.first(), Some(b'-' | b'!'))
            }
            Err(why) => {
                self.near
                    .outbox
                    .answer(format!("-ERR {why}\r\n").as_bytes());
                false
            }
        }
    }

    async fn select(&mut self, request: &Request<'_>) {
        let greeting = self.greeted();
        let number = request
            .words
            .get(1)
            .and_then(|word| std::str::from_utf8(word).ok()?.parse::<u32>().ok());
        if number == Some(greeting.database) {
            return self.near.outbox.answer(b"+OK\r\n");
        }
        if self.try_out(&greeting, request).await
            && let Some(database) = number
        {
            self.greeting = Some(Greeting {
                database,
                ..greeting
            });
        }
    }

    async fn auth(&mut self, request: &Request<'_>) {
        let words = request.words;
        let Some(auth) = credentials(&words, 1) else {
            return self.near.outbox.answer(b"-ERR syntax error\r\n");
        };
        let greeting = Greeting {
            auth: None,
            ..self.greeted()
        };
        let bare = Greeting::default();
        if self.try_out(&bare, request).await {
            self.greeting = Some(Greeting {
                auth: Some(Auth::Client(auth)),
                ..greeting
            });
        }
    }

    async fn hello(&mut self, request: &Request<'_>) {
        let words = request.words;
        let version = match words.get(1) {
            None => None,
            Some(b"2") => Some(false),
            Some(b"3") => Some(true),
            Some(_) => {
                return self
                    .near
                    .outbox
                    .answer(b"-NOPROTO unsupported protocol version\r\n");
            }
        };
        let mut greeting = self.greeted();
        let mut at = 2;
        let mut name = None;
        let mut given = None;
        while at < words.len() {
            if words.is(at, b"auth") && at + 2 < words.len() {
                given = Some((
                    words.get(at + 1).unwrap_or_default().to_vec(),
                    words.get(at + 2).unwrap_or_default().to_vec(),
                ));
                at += 3;
            } else if words.is(at, b"setname") && at + 1 < words.len() {
                name = words.get(at + 1).map(<[u8]>::to_vec);
                at += 2;
            } else {
                let option =
                    String::from_utf8_lossy(words.get(at).unwrap_or_default()).into_owned();
                let line = format!("-ERR Syntax error in HELLO option '{option}'\r\n");
                return self.near.outbox.answer(line.as_bytes());
            }
        }
        let before = match &given {
            Some(_) => Greeting::default(),
            None => Greeting {
                database: 0,
                ..greeting.clone()
            },
        };
        if self.try_out(&before, request).await {
            if let Some(resp3) = version {
                greeting.resp3 = resp3;
            }
            if given.is_some() {
                greeting.auth = given.map(Auth::Client);
            }
            if let Some(name) = name {
                self.who.name = name;
            }
            self.greeting = Some(greeting);
        }
    }
}

/// What connections begin with now for a client that asked for this.
pub(super) fn greeted(router: &impl Router, asked: Option<&Greeting>) -> Greeting {
    let module = || router.first().greeting().clone();
    asked.cloned().unwrap_or_else(module)
}

/// User and password, or the password alone, from word `at` on.
fn credentials(words: &Words<'_>, at: usize) -> Option<Credentials> {
    let word = |at: usize| words.get(at).map(<[u8]>::to_vec);
    match words.len() - at {
        1 => Some((Vec::new(), word(at)?)),
        2 => Some((word(at)?, word(at + 1)?)),
        _ => None,
    }
}
