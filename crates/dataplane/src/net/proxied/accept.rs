//! Reading the header of the PROXY protocol off a connection.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use podkit_foundation::params::Cidr;

use super::{Path, Step, parse};
use crate::net::{Accepted, Listener, NEWCOMER, Peer, Port, Serve, Socket, Worker, accept};

/// Serves connections of which those from balancers that are trusted begin with a header; `inner` sees their clients.
///
/// Others are served as who they are: a header that they send is for `inner`, which will not take it for its protocol.
#[derive(Debug)]
pub struct AcceptProxy<S> {
    trusted: Vec<Cidr>,
    /// For the header.
    patience: Duration,
    inner: Rc<S>,
}

impl<S> AcceptProxy<S> {
    /// `trusted`: where balancers are; who comes over a unix socket is one as well, unless it is empty.
    pub fn new(trusted: Vec<Cidr>, patience: Duration, inner: Rc<S>) -> Self {
        Self {
            trusted,
            patience,
            inner,
        }
    }

    fn is_trusted(&self, peer: Peer) -> bool {
        match peer.ip() {
            Some(ip) => self.trusted.iter().any(|block| block.has(ip)),
            None => !self.trusted.is_empty(),
        }
    }
}

impl<S: Serve> Serve for AcceptProxy<S> {
    async fn serve(self: Rc<Self>, mut accepted: Accepted) {
        if self.is_trusted(accepted.peer) {
            let Accepted {
                socket,
                peer,
                worker,
                guard,
            } = &mut accepted;
            match read(socket, worker, self.patience).await {
                Ok(Some(path)) => {
                    *peer = path.from.into();
                    if !guard.announce(*peer) {
                        return;
                    }
                }
                Ok(None) => {}
                Err(Refused::Header(why)) => return worker.refuse_header(*peer, why),
                Err(Refused::Gone) => return,
            }
        }
        Rc::clone(&self.inner).serve(accepted).await;
    }
}

/// Accepts from a worker's sockets of `listeners`, in tasks of their own. `proxies`: balancers whose connections begin with a
/// header, which must come within `patience`.
pub fn accept_from<S: Serve>(
    listeners: &[Listener],
    proxies: &[Cidr],
    patience: Duration,
    worker: &Rc<Worker>,
    serve: &Rc<S>,
) -> io::Result<()> {
    for listener in listeners {
        let (port, worker, serve) = (listener.take()?, Rc::clone(worker), Rc::clone(serve));
        if proxies.is_empty() {
            drop(tokio::task::spawn_local(run(port, worker, serve)));
        } else {
            let serve = Rc::new(AcceptProxy::new(proxies.to_vec(), patience, serve));
            drop(tokio::task::spawn_local(run(port, worker, serve)));
        }
    }
    Ok(())
}

async fn run<S: Serve>(port: Port, worker: Rc<Worker>, serve: Rc<S>) {
    if let Err(error) = accept(port, worker, serve).await {
        tracing::error!(why = %error, "a listener ended");
    }
}

/// Why a connection is not served.
enum Refused {
    /// Its header is not right.
    Header(&'static str),
    /// It ended without a word, as a check of whether the port is open does, or we end.
    Gone,
}

/// Reads a header and not a byte more, within `patience`.
async fn read(
    socket: &mut Socket,
    worker: &Worker,
    patience: Duration,
) -> Result<Option<Path>, Refused> {
    let timer = worker.clock.timer();
    timer.arm_for(patience);
    let mut bytes = Vec::new();
    loop {
        let more = match parse(&bytes) {
            Ok(Step::Done(path)) => return Ok(path),
            Ok(Step::More(more)) => more,
            Err(wrong) => return Err(Refused::Header(wrong.0)),
        };
        let had = bytes.len();
        bytes.resize(had + more, 0);
        let count = poll_fn(|cx| {
            if let Poll::Ready(read) = socket.poll_read_slice(cx, &mut bytes[had..]) {
                return Poll::Ready(Some(read.unwrap_or(0)));
            }
            if worker.draining() {
                timer.shorten(NEWCOMER);
            }
            match timer.expired(cx) {
                true => Poll::Ready(None),
                false => Poll::Pending,
            }
        })
        .await;
        match count {
            Some(count @ 1..) => bytes.truncate(had + count),
            Some(0) if had == 0 => return Err(Refused::Gone),
            None if worker.draining() => return Err(Refused::Gone),
            Some(0) => return Err(Refused::Header("it ended within its PROXY header")),
            None => return Err(Refused::Header("its PROXY header did not come in time")),
        }
    }
}
