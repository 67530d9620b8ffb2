//! The rest of a request's way through the rules, behind one whose key is another replica's: the request waits for that, and takes
//! the rules behind it in the same wait.

use std::sync::Arc;

use podkit_dataplane::http::stage::{Pass, Waited};
use podkit_dataplane::net::Buf;
use tokio::time::Instant;

use super::Settled;
use super::gcra::Outcome;
use super::limiter::{Limiter, Worker, note, refusal};
use super::set::Set;

/// Where rules put the fields of an answer and what is held for it.
pub(super) trait Sink {
    fn fields(&mut self) -> &mut Buf;
    fn hold(&mut self, held: u64);
}

impl Sink for Pass<'_> {
    fn fields(&mut self) -> &mut Buf {
        Pass::fields(self)
    }

    fn hold(&mut self, held: u64) {
        Pass::hold(self, held);
    }
}

/// What a wait has put together; gives back what it holds when it is dropped before its end.
struct Gathered {
    limiter: Arc<Limiter>,
    fields: Buf,
    held: Vec<u64>,
}

impl Sink for Gathered {
    fn fields(&mut self) -> &mut Buf {
        &mut self.fields
    }

    fn hold(&mut self, held: u64) {
        self.held.push(held);
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        for held in self.held.drain(..) {
            self.limiter.flight.leave(held);
        }
    }
}

/// The rules that are left for a request.
pub(super) struct Rest {
    pub(super) set: Arc<Set>,
    /// Index, tag and key of each; the first has been entered.
    pub(super) steps: Vec<(usize, u64, Vec<u8>)>,
    /// The client takes JSON.
    pub(super) json: bool,
}

impl Rest {
    /// Passes them. `least`: as it was before. Ends within twice `--peers-timeout` a rule.
    pub(super) async fn pass(
        self,
        limiter: Arc<Limiter>,
        worker: Worker,
        mut least: Option<(u64, Outcome)>,
    ) -> Waited {
        let mut gathered = Gathered {
            limiter: Arc::clone(&limiter),
            fields: Buf::small(),
            held: Vec::new(),
        };
        let mut reply = None;
        for (turn, (at, tag, key)) in self.steps.into_iter().enumerate() {
            let counted = &self.set.rules[at];
            let rule = &counted.rule;
            let mut refused = match turn {
                0 => None,
                _ => limiter.enter(counted, tag, &mut gathered),
            };
            let mut outcome = None;
            if let (Some(rate), None) = (&rule.rate, refused) {
                let asked = match &worker.borrower {
                    Some(borrower) => borrower.ask(tag, rate, rule.cost).await,
                    None => None,
                };
                let now = limiter.owner.nanos(Instant::now());
                outcome = Some(asked.unwrap_or_else(|| limiter.fall_back(rule, rate, tag, now)));
            }
            limiter.stand(counted, outcome, &mut gathered, &mut least, &mut refused);
            let settled = note(counted, refused, &worker.roll, tag, &key, Instant::now());
            if settled == Settled::Limited {
                limiter.put_refusal(&mut gathered.fields, least, refused);
                reply = Some(refusal(self.json, &counted.problem));
                break;
            }
        }
        if reply.is_none() {
            limiter.put_x(&mut gathered.fields, least);
        }
        Waited {
            fields: gathered.fields.filled().to_vec(),
            held: std::mem::take(&mut gathered.held),
            reply,
        }
    }
}
