//! The owner's side: answers from this process's own table, which its own requests are counted in too.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use podkit_dataplane::net::{Acceptor, Socket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::super::gcra::Gcra;
use super::super::table::Table;
use super::wire::{self, Answer, Ask, Role, Secret, Stream};

/// Connections of askers at a time.
const CONNECTIONS: usize = 1024;
/// How long an asker may take to prove itself, and to take its answers.
const PATIENCE: Duration = Duration::from_secs(1);
/// An asker that wants nothing for so long may come again.
const IDLE: Duration = Duration::from_secs(300);
/// Answers that are sent at once.
const BATCH: usize = 64;
/// How long to wait when the process has no descriptor left.
const PAUSE: Duration = Duration::from_millis(50);

/// The keys that this process owns.
#[derive(Debug, Clone)]
pub(in super::super) struct Owner {
    pub(in super::super) table: Arc<Table>,
    /// Where the table's clock begins.
    pub(in super::super) begin: Instant,
}

impl Owner {
    /// Nanoseconds of the table's clock.
    pub(in super::super) fn nanos(&self, at: Instant) -> u64 {
        let nanos = at.saturating_duration_since(self.begin).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    /// Charges what is asked for, or as many whole requests of it as there are. None for an ask that no rule can make.
    pub(super) fn answer(&self, ask: &Ask) -> Option<Answer> {
        let gcra = Gcra::of_interval(ask.interval, ask.burst)?;
        let right = ask.tag != 0 && (1..=ask.burst).contains(&ask.cost) && ask.wanted >= ask.cost;
        if !right {
            return None;
        }
        let now = self.nanos(Instant::now());
        let mut wanted = ask.wanted.min(ask.burst) / ask.cost * ask.cost;
        loop {
            let outcome = self.table.ask(ask.tag, &gcra, now, wanted);
            let fewer = outcome.remaining.min(wanted - 1) / ask.cost * ask.cost;
            if outcome.allowed || wanted == ask.cost {
                return Some(Answer {
                    granted: if outcome.allowed { wanted } else { 0 },
                    remaining: outcome.remaining,
                    full_after: outcome.full_after,
                    more_after: outcome.more_after,
                    retry_after: outcome.retry_after,
                });
            }
            wanted = fewer.max(ask.cost);
        }
    }

    /// Serves all askers, forever.
    pub(super) async fn serve(self, mut acceptor: Acceptor, secret: Secret) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut tasks = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = acceptor.accept() => accepted,
                Some(_) = tasks.join_next() => continue,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(why = %error, "a peer can't be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            // Who finds no room is closed, and tries again.
            let Ok(claim) = Arc::clone(&room).try_acquire_owned() else {
                continue;
            };
            let (owner, secret) = (self.clone(), secret.clone());
            tasks.spawn_local(async move {
                if let Err(error) = owner.serve_one(boxed(socket), &secret).await {
                    tracing::debug!(%peer, why = %error, "a peer was sent away");
                }
                drop(claim);
            });
        }
    }

    /// Serves one asker until it goes.
    pub(super) async fn serve_one<S: Stream>(&self, stream: S, secret: &Secret) -> io::Result<()> {
        let (mut reader, mut writer) =
            timeout(PATIENCE, wire::shake(stream, secret, Role::Owner)).await??;
        loop {
            let Some(ask) = timeout(IDLE, reader.next::<Ask>()).await?? else {
                return Ok(());
            };
            let Some(answer) = self.answer(&ask) else {
                return Err(io::Error::other("an ask that no rule can make"));
            };
            writer.put(&answer);
            if writer.waiting() >= BATCH || !reader.has_more() {
                timeout(PATIENCE, writer.flush()).await??;
            }
        }
    }
}

pub(super) fn boxed(socket: Socket) -> Box<dyn Stream> {
    match socket {
        Socket::Tcp(stream) => Box::new(stream),
        Socket::Unix(stream) => Box::new(stream),
        Socket::Fresh(_) => unreachable!("whoever opens or accepts one by itself has it watched"),
    }
}
