//! What was sent on a connection of one client's own and may have to be sent again elsewhere: as long as its client was told nothing that
//! depends on what a server has, all of it can be.

use std::collections::VecDeque;
use std::rc::Rc;

use super::reply::Ticket;

/// Bytes that are kept to be sent again, at most.
const MOST: usize = 1 << 20;
const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";
const DISCARD: &[u8] = b"*1\r\n$7\r\nDISCARD\r\n";

/// What a command is to a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is in none.
    Plain,
    /// MULTI.
    Begin,
    /// Queued within it.
    Queued,
    /// EXEC.
    End,
    /// Of ours, for the command behind it.
    Lead,
    /// Of ours: who the client is there.
    Id,
}

impl Step {
    /// It is never sent again.
    fn is_ours(self) -> bool {
        matches!(self, Self::Lead | Self::Id)
    }
}

/// A command without a reply yet.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Who waits for it; None: nobody.
    pub(super) ticket: Option<Ticket>,
    /// It may have changed something.
    pub(super) changes: bool,
    pub(super) step: Step,
}

impl Waiting {
    pub(super) fn nobody(step: Step) -> Self {
        Self {
            ticket: None,
            changes: false,
            step,
        }
    }
}

/// Commands in the order in which they were sent; the last ones wait for their replies.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Those that would be sent again. Of those that wait all but leads are here, unless they were too many.
    sent: VecDeque<Rc<[u8]>>,
    bytes: usize,
    overflown: bool,
    pub(super) waiting: VecDeque<Waiting>,
    /// The client was told something that would not hold elsewhere: what it watches.
    settled: bool,
}

impl Journal {
    /// A command is sent.
    pub(super) fn put(&mut self, bytes: &[u8], waiting: Waiting) {
        self.keep(bytes, false);
        self.waiting.push_back(waiting);
    }

    /// The same, before all others.
    pub(super) fn put_first(&mut self, bytes: &[u8], waiting: Waiting) {
        self.keep(bytes, true);
        self.waiting.push_front(waiting);
    }

    /// Something of ours is sent before all others.
    pub(super) fn lead(&mut self, step: Step) {
        self.waiting.push_front(Waiting::nobody(step));
    }

    fn keep(&mut self, bytes: &[u8], first: bool) {
        if self.waiting.is_empty() && self.sent.is_empty() {
            self.overflown = false;
        }
        self.overflown |= self.bytes + bytes.len() > MOST;
        if self.overflown {
            self.sent.clear();
            self.bytes = 0;
            return;
        }
        self.bytes += bytes.len();
        match first {
            true => self.sent.push_front(bytes.into()),
            false => self.sent.push_back(bytes.into()),
        }
    }

    /// One was answered. What is queued in a transaction has no effect before its end.
    pub(super) fn answered(&mut self, step: Step, watching: bool) {
        self.settled |= watching && step == Step::Plain;
        if matches!(step, Step::Plain | Step::End) {
            let left = self.waiting.len();
            while self.sent.len() > left {
                let gone = self.sent.pop_front();
                self.bytes -= gone.map_or(0, |gone| gone.len());
            }
        }
        if step == Step::End {
            self.settled = false;
        }
    }

    /// What the client watches may have been changed elsewhere.
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    /// It watches nothing any more.
    pub(super) fn unsettle(&mut self) {
        self.settled = false;
    }

    /// All that waits is within a transaction that has begun.
    pub(super) fn is_within(&self) -> bool {
        let within = |one: &Waiting| matches!(one.step, Step::Queued | Step::End);
        !self.waiting.is_empty() && self.waiting.iter().all(within)
    }

    /// It is one command: it may be sent with `ASKING`, which holds for one only.
    pub(super) fn is_single(&self) -> bool {
        self.sent.len() == 1
    }

    /// The first command that waits.
    pub(super) fn first(&self) -> Option<&Rc<[u8]>> {
        self.sent.get(self.sent.len().checked_sub(self.owed())?)
    }

    /// It is not to be sent any more. Who waits for it.
    pub(super) fn skip_first(&mut self) -> Option<Ticket> {
        let at = self.sent.len().checked_sub(self.owed())?;
        let gone = self.sent.remove(at)?;
        self.bytes -= gone.len();
        self.waiting.retain(|one| !one.step.is_ours());
        self.waiting.pop_front()?.ticket
    }

    fn owed(&self) -> usize {
        let owed = |one: &&Waiting| !one.step.is_ours();
        self.waiting.iter().filter(owed).count()
    }

    /// What is sent on a new connection; None: it is not known any more. `void`: a transaction ends without having been done.
    pub(super) fn replay(&mut self, asking: bool, void: bool) -> Option<Vec<u8>> {
        if self.overflown || self.sent.len() < self.owed() {
            return None;
        }
        self.waiting.retain(|one| !one.step.is_ours());
        let before = self.sent.len() - self.waiting.len();
        let mut out = if asking { ASKING.to_vec() } else { Vec::new() };
        for (at, command) in self.sent.iter().enumerate() {
            let step = at.checked_sub(before).map(|at| self.waiting[at].step);
            match void && step == Some(Step::End) {
                true => out.extend_from_slice(DISCARD),
                false => out.extend_from_slice(command),
            }
        }
        // These have their replies.
        for at in (0..before).rev() {
            let step = if at == 0 { Step::Begin } else { Step::Queued };
            self.waiting.push_front(Waiting::nobody(step));
        }
        if asking {
            self.lead(Step::Lead);
        }
        Some(out)
    }

    /// Nothing was sent any more. Those who wait.
    pub(super) fn give_up(&mut self) -> impl Iterator<Item = (Ticket, Step)> + use<> {
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        *self = Self::default();
        waiting.filter_map(|one| Some((one.ticket?, one.step)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";

    fn wait(step: Step) -> Waiting {
        Waiting::nobody(step)
    }

    fn steps(journal: &Journal) -> Vec<Step> {
        journal.waiting.iter().map(|one| one.step).collect()
    }

    #[test]
    fn a_command_that_waits_is_sent_again_with_asking() {
        let mut journal = Journal::default();
        journal.put(b"BLPOP", wait(Step::Plain));
        assert_eq!(
            journal.replay(true, false),
            Some([ASKING, b"BLPOP"].concat())
        );
        assert_eq!(steps(&journal), [Step::Lead, Step::Plain]);
        // The lead was answered; then it is sent elsewhere again.
        journal.waiting.pop_front();
        journal.answered(Step::Lead, false);
        assert_eq!(journal.replay(false, false), Some(b"BLPOP".to_vec()));
        journal.waiting.pop_front();
        journal.answered(Step::Plain, false);
        assert!(journal.first().is_none() && !journal.is_settled());
    }

    #[test]
    fn what_waits_no_more_is_not_sent_again() {
        let mut journal = Journal::default();
        assert!(journal.skip_first().is_none());
        journal.put(b"WATCH", wait(Step::Plain));
        journal.put(b"BLPOP", wait(Step::Plain));
        journal.put(b"GET", wait(Step::Plain));
        journal.lead(Step::Id);
        journal.waiting.pop_front();
        journal.answered(Step::Id, true);
        journal.waiting.pop_front();
        journal.answered(Step::Plain, true);
        journal.lead(Step::Id);
        assert_eq!(journal.first().map(|one| &**one), Some(&b"BLPOP"[..]));
        // These are nobody's.
        assert!(journal.skip_first().is_none());
        assert_eq!(steps(&journal), [Step::Plain]);
        assert_eq!(journal.replay(false, false), Some(b"GET".to_vec()));
    }

    #[test]
    fn a_transaction_is_sent_again_from_its_begin() {
        let mut journal = Journal::default();
        journal.put(b"SET", wait(Step::Queued));
        journal.put_first(MULTI, wait(Step::Begin));
        journal.put(b"GET", wait(Step::Queued));
        for step in [Step::Begin, Step::Queued] {
            journal.waiting.pop_front();
            journal.answered(step, false);
        }
        journal.put(b"EXEC", wait(Step::End));
        assert_eq!(journal.first().map(|one| &**one), Some(&b"GET"[..]));
        let all = [MULTI, b"SETGETEXEC"].concat();
        assert_eq!(journal.replay(false, false), Some(all));
        let expected = [Step::Begin, Step::Queued, Step::Queued, Step::End];
        assert_eq!(steps(&journal), expected);
        let void = [MULTI, b"SETGET", DISCARD].concat();
        assert_eq!(journal.replay(false, true), Some(void));
    }

    #[test]
    fn who_the_client_is_there_is_asked_first_and_on_each_connection_anew() {
        let mut journal = Journal::default();
        journal.put(b"SET", wait(Step::Queued));
        journal.put_first(MULTI, wait(Step::Begin));
        journal.lead(Step::Id);
        assert_eq!(steps(&journal), [Step::Id, Step::Begin, Step::Queued]);
        let all = [MULTI, b"SET"].concat();
        assert_eq!(journal.replay(false, false), Some(all.clone()));
        assert_eq!(steps(&journal), [Step::Begin, Step::Queued]);
        journal.lead(Step::Id);
        journal.waiting.pop_front();
        journal.answered(Step::Id, false);
        assert_eq!(journal.first().map(|one| &**one), Some(MULTI));
        assert_eq!(journal.replay(false, false), Some(all));
    }

    #[test]
    fn what_was_watched_is_not_elsewhere() {
        let mut journal = Journal::default();
        journal.put(b"WATCH", wait(Step::Plain));
        assert!(!journal.is_settled());
        journal.waiting.pop_front();
        journal.answered(Step::Plain, true);
        assert!(journal.is_settled());
        journal.put(MULTI, wait(Step::Begin));
        assert!(!journal.is_within());
        journal.put(b"EXEC", wait(Step::End));
        journal.waiting.pop_front();
        journal.answered(Step::Begin, true);
        assert!(journal.is_within());
    }

    #[test]
    fn too_much_is_not_sent_again() {
        let mut journal = Journal::default();
        journal.put(&vec![0; MOST], wait(Step::Queued));
        assert!(journal.first().is_some());
        journal.put(b"x", wait(Step::Queued));
        assert_eq!(journal.replay(false, false), None);
        assert_eq!(journal.give_up().count(), 0);
        journal.put(b"x", wait(Step::Plain));
        assert!(journal.replay(false, false).is_some());
    }

    proptest! {
        /// However much of a transaction was answered when it is sent elsewhere: all of it is sent, once, in order, and each reply is
        /// still owed to whom it was.
        #[test]
        fn all_is_sent_again_whatever_was_answered(length in 1usize..8, cuts in prop::collection::vec(0usize..9, 1..4)) {
            let mut journal = Journal::default();
            journal.put(&[0], wait(Step::Begin));
            for at in 1..=length {
                journal.put(&[at as u8], wait(Step::Queued));
            }
            let all: Vec<u8> = (0..=length as u8).collect();
            for cut in cuts {
                for _ in 0..cut.min(length) {
                    let step = journal.waiting.pop_front().expect("as many as were sent").step;
                    journal.answered(step, false);
                }
                prop_assert_eq!(journal.replay(false, false), Some(all.clone()));
                prop_assert_eq!(journal.waiting.len(), all.len());
            }
        }
    }
}
