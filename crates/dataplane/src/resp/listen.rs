//! A client that hears of several servers: its commands, and what it may do meanwhile.

use std::io;
use std::rc::Rc;
use std::task::Context;

use super::ear::Fault;
use super::front::Client;
use super::hearing::Sort;
use super::near::MOST_UNREAD;
use super::route::{Request, Router};
use super::scan::put_bulk;
use super::session::Taken;
use super::track::FORGET;

impl<R: Router> Client<R> {
    /// Nothing but what ends that may be asked now: replies and messages can't be told apart, or all that is seen would be.
    pub(super) fn only_hears(&self) -> bool {
        let hears = self.hears.as_ref();
        hears.is_some_and(|hears| hears.monitors() || !self.speaks_resp3())
    }

    /// Answers what can't be done now, and PING as it is then.
    pub(super) fn is_refused(&mut self, request: &Request<'_>) -> bool {
        let name = request.command.map_or("", |command| command.name);
        let monitors = self.hears.as_ref().is_some_and(|hears| hears.monitors());
        match name {
            "quit" | "reset" => return false,
            _ if !monitors && Sort::of(name).is_some() => return false,
            "ping" if !monitors => {
                let mut pong = b"*2\r\n$4\r\npong\r\n".to_vec();
                put_bulk(&mut pong, request.words.get(1).unwrap_or_default());
                self.near.outbox.answer(&pong);
                return true;
            }
            _ => {}
        }
        let word = request.words.get(0).unwrap_or_default();
        let name = String::from_utf8_lossy(word).to_lowercase();
        let allowed = match monitors {
            true => "QUIT / RESET",
            false => "(P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET",
        };
        let name = name.escape_debug();
        let line =
            format!("-ERR Can't execute '{name}': only {allowed} are allowed in this context\r\n");
        self.near.outbox.answer(line.as_bytes());
        true
    }

    /// It is about what is heard of several servers.
    pub(super) fn listens(&self, name: &str) -> bool {
        let several = !self.front.router.is_single();
        match Sort::of(name) {
            _ if self.hears.is_some() => Sort::of(name).is_some() || name == "monitor",
            Some((_, begins)) => begins && several,
            None => name == "monitor" && several,
        }
    }

    /// Begins to hear of something, or ends it.
    pub(super) async fn listen(&mut self, taken: &Taken) -> io::Result<()> {
        let mut hears = self.hears.take().unwrap_or_default();
        let (front, greeting) = (Rc::clone(&self.front), self.alone());
        let (router, resp3) = (&front.router, self.speaks_resp3());
        let greeting = greeting.as_ref();
        let request = taken.request();
        let name = request.command.map_or("", |command| command.name);
        let telling = async {
            match Sort::of(name) {
                Some((sort, true)) => {
                    hears
                        .subscribe(router, greeting, sort, &request, resp3)
                        .await
                }
                Some((sort, false)) => {
                    hears
                        .unsubscribe(router, greeting, sort, &request, resp3)
                        .await
                }
                None => {
                    hears.monitor(router, greeting).await?;
                    Ok(b"+OK\r\n".to_vec())
                }
            }
        };
        let told = match self.while_called(false, telling).await {
            Ok(told) => told,
            Err(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        let (outbox, held, of) = (&self.near.outbox, hears.take_held(), Sort::of(name));
        let ends = of.is_some_and(|(_, begins)| !begins);
        if ends {
            outbox.push(&held);
        }
        match told {
            // Said as messages are, to one who wants no replies too.
            Ok(said) if of.is_some() => outbox.say(&said),
            Ok(reply) | Err(Fault::Refused(reply)) => outbox.answer(&reply),
            Err(Fault::Lost(why)) => return Err(io::Error::other(why)),
        }
        if !ends {
            outbox.push(&held);
        }
        if !hears.is_empty() {
            self.hears = Some(hears);
        }
        Ok(())
    }

    /// Hears of the servers that there are now.
    pub(super) async fn renew(&mut self) -> io::Result<()> {
        let Some(mut hears) = self.hears.take() else {
            return Ok(());
        };
        let (front, greeting) = (Rc::clone(&self.front), self.alone());
        let renewing = hears.renew(&front.router, greeting.as_ref());
        let renewed = match self.while_called(false, renewing).await {
            Ok(renewed) => renewed,
            Err(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        match renewed {
            Ok(()) => {}
            Err(Fault::Lost(why)) => return Err(io::Error::other(why)),
            Err(Fault::Refused(line)) => {
                let line = String::from_utf8_lossy(&line);
                return Err(io::Error::other(line.trim_end().to_owned()));
            }
        }
        self.near.outbox.push(&hears.take_held());
        if hears.tracker().is_some() {
            // What it has read may be another server's by now, which does not know of that.
            self.near.outbox.behind(FORGET);
        }
        self.hears = Some(hears);
        Ok(())
    }

    /// Hands on what has come. True when there may be other servers.
    pub(super) fn hear(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let outbox = &self.near.outbox;
        match &mut self.hears {
            // It takes less than there is: more is looked for when it has taken that.
            Some(_) if outbox.bytes() >= MOST_UNREAD => Ok(false),
            Some(hears) => hears.poll(outbox, cx).map_err(io::Error::other),
            None => Ok(false),
        }
    }
}
