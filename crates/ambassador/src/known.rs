//! What the servers said of commands that podkit does not know, such as those of modules: asked once, by `COMMAND INFO`.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use podkit_dataplane::resp::scan::{elements, integer, text};
use podkit_dataplane::resp::{Keys, Node, Request};

/// Commands that are remembered, at most: clients choose their names.
const MOST: usize = 1024;
/// So soon a server that could not say is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// What a server says of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said {
    /// Where its keys are; None: that depends on its words.
    pub(crate) keys: Option<Keys>,
    /// It changes nothing, and is over at once.
    pub(crate) reads: bool,
    /// It may wait.
    pub(crate) waits: bool,
}

/// What is known of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Look {
    /// This.
    Said(Said),
    /// The server does not know it either.
    Nobody,
    /// It is being asked for.
    Asked,
    /// Nobody has asked for it yet; from now on somebody has.
    Ask(Vec<u8>),
    /// It could not be asked for; or there are too many.
    Unanswered(String),
}

#[derive(Debug)]
enum State {
    /// And who waits to hear of it.
    Asked(Vec<Waker>),
    Told(Option<Said>),
    /// Why not, and when.
    Failed(String, Instant),
}

/// All of them, for all threads.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<HashMap<Vec<u8>, State>>);

impl Known {
    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(request: &Request<'_>) -> Vec<u8> {
        let name = request.words.get(0).unwrap_or_default();
        name.to_ascii_lowercase()
    }

    /// What is known of it now.
    pub(crate) fn look(&self, request: &Request<'_>) -> Look {
        let name = Self::name(request);
        let mut known = self.lock();
        match known.get(&name) {
            Some(State::Told(Some(said))) => return Look::Said(*said),
            Some(State::Told(None)) => return Look::Nobody,
            Some(State::Asked(_)) => return Look::Asked,
            Some(State::Failed(why, when)) if when.elapsed() < AGAIN => {
                return Look::Unanswered(why.clone());
            }
            None if known.len() >= MOST => {
                return Look::Unanswered(format!("{MOST} unknown commands were asked for already"));
            }
            Some(State::Failed(..)) | None => {}
        }
        known.insert(name.clone(), State::Asked(Vec::new()));
        Look::Ask(name)
    }

    /// Has a client woken when it is known. False: it is.
    pub(crate) fn wait(&self, request: &Request<'_>, waker: &Waker) -> bool {
        match self.lock().get_mut(&Self::name(request)) {
            Some(State::Asked(waiting)) => {
                waiting.push(waker.clone());
                true
            }
            _ => false,
        }
    }

    fn put(&self, name: Vec<u8>, state: State) {
        if let Some(State::Asked(waiting)) = self.lock().insert(name, state) {
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    /// The reply to COMMAND INFO for one.
    pub(crate) fn learn(&self, name: Vec<u8>, reply: &[u8]) {
        let state = match reply.first() {
            Some(b'-') => {
                let line = String::from_utf8_lossy(&reply[1..]);
                State::Failed(line.trim_end().to_owned(), Instant::now())
            }
            _ => State::Told(said(reply)),
        };
        self.put(name, state);
    }

    /// Nobody could say: it is asked for again when it comes again.
    pub(crate) fn fail(&self, name: Vec<u8>, why: String) {
        self.put(name, State::Failed(why, Instant::now()));
    }

    /// Asks a server. Spawns the task that does.
    pub(crate) fn ask(self: Arc<Self>, name: Vec<u8>, node: Rc<Node>) {
        drop(tokio::task::spawn_local(async move {
            match node.ask(&[b"COMMAND".as_slice(), b"INFO", &name]).await {
                Ok(reply) => self.learn(name, &reply),
                Err(why) => self.fail(name, why),
            }
        }));
    }
}

/// What the reply to COMMAND INFO says; None: it knows no such command.
fn said(reply: &[u8]) -> Option<Said> {
    let first = elements(reply)?.into_iter().next()?;
    let command = &reply[first];
    let parts = elements(command)?;
    let flags = &command[parts.get(2)?.clone()];
    let mut names = Vec::new();
    for flag in elements(flags)? {
        names.push(text(&flags[flag])?);
    }
    let is = |flag: &str| names.contains(&flag.as_bytes());
    let number = |at: usize| integer(&command[parts.get(at)?.clone()]);
    let keys = match (number(3)?, number(4)?, number(5)?) {
        (0, _, _) => Keys::None,
        (first, last, step) => Keys::Range {
            first: usize::try_from(first).ok()?,
            last: isize::try_from(last).ok()?,
            step: usize::try_from(step).ok().filter(|step| *step > 0)?,
        },
    };
    let keys = (!is("movablekeys")).then_some(keys);
    Some(Said {
        keys,
        reads: is("readonly") && !is("blocking") && !is("noscript"),
        waits: is("blocking"),
    })
}

#[cfg(test)]
mod tests {
    use podkit_dataplane::resp::Words;

    use super::*;

    fn asks(known: &Known) -> Look {
        known.look(&Request {
            bytes: b"X",
            words: Words::new(b"X", std::slice::from_ref(&(0..1))),
            command: None,
        })
    }

    #[test]
    fn a_command_is_asked_for_once() {
        let known = Known::default();
        let name = b"x".to_vec();
        assert_eq!(asks(&known), Look::Ask(name.clone()));
        assert_eq!(asks(&known), Look::Asked);
        known.learn(name.clone(), b"*1\r\n*-1\r\n");
        assert_eq!(asks(&known), Look::Nobody);
        known.learn(name.clone(), b"-NOPERM no\r\n");
        assert_eq!(asks(&known), Look::Unanswered("NOPERM no".to_owned()));
        let before = Instant::now().checked_sub(AGAIN).unwrap();
        known.put(name.clone(), State::Failed(String::new(), before));
        assert_eq!(asks(&known), Look::Ask(name));
    }

    #[test]
    fn who_waits_is_woken() {
        struct Flag(std::sync::atomic::AtomicBool);
        impl std::task::Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let (known, flag) = (Known::default(), Arc::new(Flag(false.into())));
        let waker = Waker::from(Arc::clone(&flag));
        let request = Request {
            bytes: b"X",
            words: Words::new(b"X", std::slice::from_ref(&(0..1))),
            command: None,
        };
        assert!(!known.wait(&request, &waker));
        assert_eq!(known.look(&request), Look::Ask(b"x".to_vec()));
        assert!(known.wait(&request, &waker));
        known.fail(b"x".to_vec(), "gone".to_owned());
        assert!(flag.0.load(std::sync::atomic::Ordering::SeqCst));
        assert!(!known.wait(&request, &waker));
    }

    #[test]
    fn what_a_server_says_is_read() {
        let reply = |flags: &str, keys: &str| {
            format!("*1\r\n*6\r\n$3\r\nx.y\r\n:-2\r\n{flags}{keys}").into_bytes()
        };
        let range = |first, last, step| Some(Keys::Range { first, last, step });
        let told = |reply: Vec<u8>| said(&reply).map(|said| (said.keys, said.reads, said.waits));
        let first = ":1\r\n:1\r\n:1\r\n";
        assert_eq!(
            told(reply("*1\r\n+readonly\r\n", first)),
            Some((range(1, 1, 1), true, false))
        );
        assert_eq!(
            told(reply(
                "*2\r\n+write\r\n+blocking\r\n",
                ":1\r\n:-2\r\n:1\r\n"
            )),
            Some((range(1, -2, 1), false, true))
        );
        assert_eq!(
            told(reply("*2\r\n+readonly\r\n+movablekeys\r\n", first)),
            Some((None, true, false))
        );
        assert_eq!(
            told(reply("*1\r\n+fast\r\n", ":0\r\n:0\r\n:0\r\n")),
            Some((Some(Keys::None), false, false))
        );
        assert_eq!(said(b"*1\r\n$-1\r\n"), None);
        assert_eq!(said(b"*1\r\n*-1\r\n"), None);
    }
}
