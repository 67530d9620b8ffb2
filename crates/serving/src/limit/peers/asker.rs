//! The asker's side, on the main thread: a connection to each peer, and which peer owns a key.
//!
//! What is asked belongs to the connection, not to the request that needs it: a client that goes away loses no units. While
//! there is no connection, asks are dismissed at once, so that nobody waits for a peer that is away.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use podkit_dataplane::upstream::pick::{Hashing, Table, fnv};
use podkit_dataplane::upstream::{Endpoint, dial};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::owner::boxed;
use super::wire::{self, Answer, Ask, Reader, Role, Stream, Writer};
use super::{Peers, State};

/// Asks of a peer that wait, and asks of a process that no peer has taken yet.
pub(super) const WAITING: usize = 1024;
/// How long connecting may take, the proofs included.
const CONNECT: Duration = Duration::from_secs(1);
/// Until a lost peer is tried again: at first, and at most.
const AGAIN: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// How soon a change of the list is seen when nobody asks.
const LOOK: Duration = Duration::from_secs(1);

/// An ask, and where its answer goes; dropped without one when the owner can't be asked.
pub(super) struct Question {
    pub(super) ask: Ask,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// A peer that may own keys.
enum Place {
    /// This process.
    Here,
    Peer(mpsc::Sender<Question>),
}

/// Which peer owns a key, and the connections to all.
struct Places {
    peers: Arc<Peers>,
    /// Of the list that `table` is of.
    epoch: u64,
    table: Table,
    places: HashMap<u32, (Place, Option<AbortHandle>)>,
    tasks: JoinSet<()>,
}

impl Places {
    /// Follows the list: connections to who came, none to who is gone.
    fn follow(&mut self) {
        let epoch = self.peers.membership.epoch();
        if epoch == self.epoch {
            return;
        }
        self.epoch = epoch;
        let view = self.peers.membership.view();
        self.places.retain(|id, (_, task)| {
            let stays = view.endpoints.iter().any(|one| one.id() == *id);
            if let (false, Some(task)) = (stays, task) {
                task.abort();
            }
            stays
        });
        self.peers.states().retain(|name, _| {
            let mut names = view.endpoints.iter().map(|one| one.name());
            names.any(|known| known == name)
        });
        for endpoint in &view.endpoints {
            if !self.places.contains_key(&endpoint.id()) {
                let place = self.place(endpoint);
                self.places.insert(endpoint.id(), place);
            }
        }
        let entry = |one: &Arc<Endpoint>| {
            let hash = fnv(one.name().as_bytes());
            (one.id(), hash, one.weight().into())
        };
        let entries = view.endpoints.iter().map(entry);
        self.table = Table::new(Hashing::Rendezvous, entries);
    }

    fn place(&mut self, endpoint: &Arc<Endpoint>) -> (Place, Option<AbortHandle>) {
        if self.peers.is_here(endpoint.target().addr()) {
            self.peers.set(endpoint.name(), State::Here);
            return (Place::Here, None);
        }
        let (sender, receiver) = mpsc::channel(WAITING);
        let link = keep(Arc::clone(&self.peers), Arc::clone(endpoint), receiver);
        (Place::Peer(sender), Some(self.tasks.spawn_local(link)))
    }

    /// Hands a question to the owner of its key.
    fn hand(&self, question: Question) {
        let owner = self.table.find(question.ask.tag, |_| true);
        match owner.and_then(|id| self.places.get(&id)) {
            Some((Place::Here, _)) => {
                if let Some(answer) = self.peers.owner.answer(&question.ask) {
                    question.reply.send(answer).ok();
                }
            }
            // A full queue: what is asked is dismissed.
            Some((Place::Peer(sender), _)) => drop(sender.try_send(question)),
            None => {}
        }
    }
}

/// Hands each question to the owner of its key, forever.
pub(super) async fn route(peers: Arc<Peers>, mut questions: mpsc::Receiver<Question>) {
    let mut places = Places {
        epoch: 0,
        table: Table::new(Hashing::Rendezvous, []),
        places: HashMap::new(),
        tasks: JoinSet::new(),
        peers,
    };
    loop {
        // Connections are there before the first question, and follow the list.
        places.follow();
        tokio::select! {
            question = questions.recv() => match question {
                Some(question) => {
                    places.follow();
                    places.hand(question);
                }
                None => return,
            },
            Some(_) = places.tasks.join_next() => {}
            () = sleep(LOOK) => {}
        }
    }
}

/// Connected to one peer, again and again, as long as the peer is in the list.
async fn keep(peers: Arc<Peers>, endpoint: Arc<Endpoint>, mut questions: mpsc::Receiver<Question>) {
    let name = endpoint.name();
    let mut pause = AGAIN[0];
    loop {
        let connecting = async {
            let connect = async {
                let socket = dial(endpoint.target().addr()).await;
                let socket = socket.map_err(io::Error::other)?;
                wire::shake(boxed(socket), &peers.secret, Role::Asker).await
            };
            timeout(CONNECT, connect).await?
        };
        let why = match meanwhile(connecting, &mut questions).await {
            Ok((reader, writer)) => {
                pause = AGAIN[0];
                peers.set(name, State::Connected);
                match exchange(reader, writer, &mut questions, peers.timeout).await {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        peers.set(name, State::Lost(why.to_string()));
        meanwhile(sleep(pause), &mut questions).await;
        pause = (pause * 2).min(AGAIN[1]);
    }
}

/// Dismisses what is asked until `future` ends.
async fn meanwhile<F: Future>(future: F, questions: &mut mpsc::Receiver<Question>) -> F::Output {
    let mut future = std::pin::pin!(future);
    loop {
        tokio::select! {
            output = &mut future => return output,
            Some(question) = questions.recv() => drop(question),
        }
    }
}

/// Asks and takes answers until nobody asks any more, or the peer is lost: closed, not the one it was, or an answer that
/// is not there within `patience`.
pub(super) async fn exchange<S: Stream>(
    mut reader: Reader<S>,
    mut writer: Writer<S>,
    questions: &mut mpsc::Receiver<Question>,
    patience: Duration,
) -> io::Result<()> {
    let mut waiting: VecDeque<(Question, Instant)> = VecDeque::new();
    loop {
        let oldest = waiting.front().map(|(_, asked)| *asked + patience);
        let overdue = async {
            match oldest {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            question = questions.recv(), if waiting.len() < WAITING => {
                let Some(question) = question else { return Ok(()) };
                let mut next = Some(question);
                while let Some(question) = next {
                    writer.put(&question.ask);
                    waiting.push_back((question, Instant::now()));
                    next = match waiting.len() < WAITING {
                        true => questions.try_recv().ok(),
                        false => None,
                    };
                }
                timeout(patience, writer.flush()).await??;
            }
            answer = reader.next::<Answer>() => {
                let Some(answer) = answer? else {
                    return Err(io::Error::other("the peer has closed the connection"));
                };
                // Answers come in the order of the asks.
                let Some((question, _)) = waiting.pop_front() else {
                    return Err(io::Error::other("the peer answers what was not asked"));
                };
                let granted = answer.granted.min(question.ask.wanted);
                question.reply.send(Answer { granted, ..answer }).ok();
            }
            () = overdue => {
                let why = format!("no answer within {} ms", patience.as_millis());
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
        }
    }
}
