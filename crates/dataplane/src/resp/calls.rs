//! What one client asks of another by its id, whichever thread serves it: CLIENT UNBLOCK, CLIENT KILL, CLIENT LIST.
//!
//! Ids begin where no server's get to, so that an id in a command says by itself whose it is. A client can be called from when it asked for
//! its id on: before that nobody can know it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::{mpsc, oneshot};

use super::lane::Greeting;

/// The first id. JavaScript's numbers hold them too.
const FIRST: u64 = 1 << 40;
/// Calls that one client has not looked at, at most; who calls then waits.
const MOST_CALLS: usize = 16;

static IDS: AtomicU64 = AtomicU64::new(FIRST);
static CLIENTS: Mutex<Clients> = Mutex::new(BTreeMap::new());

/// Boxed: each client has room for some.
type Clients = BTreeMap<u64, mpsc::Sender<Box<Call>>>;

fn clients() -> MutexGuard<'static, Clients> {
    CLIENTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An id of podkit's, not of a server.
pub(super) fn is_ours(id: u64) -> bool {
    id >= FIRST
}

/// What is asked.
#[derive(Debug)]
pub(super) enum What {
    /// End its waiting, as TIMEOUT or ERROR does; as this user.
    Unblock(&'static str, Option<Greeting>),
    /// End it.
    Kill,
    /// Its line of CLIENT LIST.
    Describe,
}

/// A call that waits for its reply.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) what: What,
    reply: oneshot::Sender<Vec<u8>>,
}

impl Call {
    /// Who called may be gone.
    pub(super) fn reply(self, reply: Vec<u8>) {
        drop(self.reply.send(reply));
    }
}

/// A client that can be called.
#[derive(Debug)]
pub(super) struct Callee {
    pub(super) id: u64,
    calls: mpsc::Receiver<Box<Call>>,
}

impl Callee {
    pub(super) fn new() -> Self {
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        let (send, calls) = mpsc::channel(MOST_CALLS);
        clients().insert(id, send);
        Self { id, calls }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Box<Call>> {
        match self.calls.poll_recv(cx) {
            Poll::Ready(Some(call)) => Poll::Ready(call),
            // Never closed before it is dropped.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Callee {
    fn drop(&mut self) {
        clients().remove(&self.id);
    }
}

/// Calls a client; None: there is none of that id, or it ended.
pub(super) async fn call(id: u64, what: What) -> Option<Vec<u8>> {
    let callee = clients().get(&id)?.clone();
    let (reply, told) = oneshot::channel();
    callee.send(Box::new(Call { what, reply })).await.ok()?;
    drop(callee);
    told.await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_an_id_is_called_by_it_until_it_is_gone() {
        let (mut one, other) = (Callee::new(), Callee::new());
        assert!(is_ours(one.id) && one.id != other.id && !is_ours(7));
        let id = one.id;
        let calls = async {
            let call = std::future::poll_fn(|cx| one.poll(cx)).await;
            assert!(matches!(call.what, What::Describe), "{call:?}");
            call.reply(b"it".to_vec());
            // One that it does not answer.
            drop(std::future::poll_fn(|cx| one.poll(cx)).await);
            drop(one);
        };
        let asks = async {
            assert_eq!(call(id, What::Describe).await.as_deref(), Some(&b"it"[..]));
            assert_eq!(call(id, What::Kill).await, None);
            assert_eq!(call(id, What::Kill).await, None);
        };
        tokio::join!(calls, asks);
    }
}
