//! What becomes of a shard's keys while it is away (no I/O): who is out, and who stands in.
//!
//! ```text
//!   probe ─ PING ─▶ heard ─▶ Member: serves ──failures──▶ out ──successes, --min-out──▶ emptied (rehash) ─▶ serves
//!                                                         └─ spare: emptied, then it has the name and the keys
//! ```
//!
//! - *rehash* is for caches. Its keys go where the same placement has them without the shard. What it still holds when it returns is of
//!   before, so it is emptied first; and once more a probe later, since what lost connections had sent may be done only then.
//! - *spare*: another server takes the shard's place. What the spare holds is of a former failure, so it is emptied first. The shard comes
//!   back with what it had, and what the spare was told meanwhile is gone: nothing copies it.
//!
//! Rejected: to learn of failures from clients' commands, as twemproxy does. It costs clients their commands, for each shard again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use podkit_foundation::error::Failure;
use podkit_foundation::params::{ParamError, ParamSet as _, Values};

use super::params::{ShardSaid, Shards};
use super::place::nutcracker::Ejection;

podkit_foundation::choices! {
    /// `--on-failure`.
    pub(super) enum OnFailure {
        /// Commands for its keys get an error at once.
        FailFast = "fail-fast",
        /// A spare has them.
        Spare = "spare",
        /// The other shards have them.
        Rehash = "rehash",
    }
}

podkit_foundation::params! {
    /// What is done about shards that are away.
    pub(super) struct FailureParams {
        /// What becomes of the keys of a shard that is away. Has to be said with a --twemproxy whose pool has auto_eject_hosts.
        ///
        /// `fail-fast`: their commands get an error at once. `spare`: a server of --spare takes the shard's place, empty; the shard comes back with what it had, and
        /// what the spare was told is dropped. `rehash`, for caches: the other shards have them. THE SHARD IS EMPTIED (FLUSHALL, flush_all) before it
        /// serves again, so that nothing stale comes back. Shards are asked by PING, or memcached's `version`, whether they are there.
        on_failure: OnFailure { default: Some("fail-fast") },
        /// A server that waits to take a shard's place, with --on-failure spare: NAME=host:port or NAME=unix:/path; repeatable.
        ///
        /// IT IS EMPTIED (FLUSHALL, flush_all) before it takes over.
        spare: Vec<ShardSaid> {},
        /// From one question whether a shard is there to the next.
        probe_period: Duration { default: Some("1s"), bounds: Some((10, 3_600_000)) },
        /// How long its answer may take.
        probe_timeout: Duration { default: Some("1s"), bounds: Some((10, 3_600_000)) },
        /// Failed ones in a row after which a shard is out; of --twemproxy's pool server_failure_limit.
        probe_failures: u32 { default: Some("3"), bounds: Some((1, 1_000)) },
        /// Answered ones in a row after which it may serve again.
        probe_successes: u32 { default: Some("2"), bounds: Some((1, 1_000)) },
        /// How long a shard stays out at least; of --twemproxy's pool server_retry_timeout.
        min_out: Duration { default: Some("10s"), bounds: Some((0, 86_400_000)) },
    }
}

impl FailureParams {
    /// The typed parameters, checked against each other. `ejection`: what a pool of twemproxy says.
    pub(super) fn checked(values: &Values, ejection: Option<Ejection>) -> Result<Self, Failure> {
        let mut params = Self::from_values(values)?;
        let wrong = |field: &str, why: String| Failure::from(ParamError::new(field, why));
        if let Some(ejection) = ejection {
            // Not guessed: whoever moves over must not find a server emptied by a line that emptied nothing before.
            if !values.is_given("on_failure") {
                let why = "is required, as the pool of --twemproxy has auto_eject_hosts: true; expected rehash, for a cache (as there, but a server is emptied by \
                           FLUSHALL or flush_all before it serves again), or fail-fast or spare";
                return Err(wrong("on_failure", why.to_owned()));
            }
            if !values.is_given("probe_failures") {
                params.probe_failures = ejection.failures;
            }
            if !values.is_given("min_out") {
                params.min_out = ejection.retry;
            }
        }
        if params.on_failure == OnFailure::FailFast {
            let fields = [
                "probe_period",
                "probe_timeout",
                "probe_failures",
                "probe_successes",
                "min_out",
            ];
            if let Some(field) = fields.into_iter().find(|field| values.is_given(field)) {
                return Err(wrong(
                    field,
                    "needs --on-failure rehash or spare".to_owned(),
                ));
            }
        }
        match (params.on_failure, params.spare.as_slice()) {
            (OnFailure::Spare, []) => {
                let why = "is required with --on-failure spare; expected NAME=host:port";
                return Err(wrong("spare", why.to_owned()));
            }
            (OnFailure::FailFast | OnFailure::Rehash, [_, ..]) => {
                return Err(wrong("spare", "needs --on-failure spare".to_owned()));
            }
            _ => {}
        }
        for (at, spare) in params.spare.iter().enumerate() {
            if spare.weight != 1 {
                let why =
                    format!("\"{spare}\": a spare has the weight of the shard it stands in for");
                return Err(wrong("spare", why));
            }
            let before = &params.spare[..at];
            if let Some(twice) = before
                .iter()
                .find(|other| other.name == spare.name || other.server.addr == spare.server.addr)
            {
                return Err(wrong("spare", format!("\"{spare}\" is \"{twice}\" too")));
            }
        }
        Ok(params)
    }

    /// A spare is emptied: it can't be a shard. The error is one line.
    pub(super) fn check(&self, all: &[ShardSaid]) -> Result<(), String> {
        for spare in &self.spare {
            let same = |shard: &&ShardSaid| {
                shard.server.addr == spare.server.addr || shard.name == spare.name
            };
            if let Some(shard) = all.iter().find(same) {
                return Err(format!(
                    "\"{shard}\" and the spare \"{spare}\" are the same: a spare is emptied, it can't be a shard"
                ));
            }
        }
        Ok(())
    }
}

/// Who is meant, whatever its weight is.
pub(super) type Key = (String, String);

/// Of a shard or spare.
pub(super) fn key(said: &ShardSaid) -> Key {
    (said.name.clone(), said.server.to_string())
}

/// What a probe led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing.
    Same,
    /// It is out from now on.
    Fell,
    /// It is out, and may serve again now.
    MayReturn,
}

/// A shard or spare as probes know it.
#[derive(Debug, Default)]
pub(super) struct Member {
    failures: u32,
    successes: u32,
    /// Since when it is out.
    out: Option<Instant>,
    /// Why the last probe failed, or why it can't be made to serve.
    pub(super) why: String,
    /// Who has its keys.
    stand_in: Option<ShardSaid>,
    /// Who is made ready to have them.
    chosen: Option<ShardSaid>,
}

impl Member {
    fn heard(&mut self, result: Result<(), String>, now: Instant, params: &FailureParams) -> Heard {
        match result {
            Ok(()) => (self.failures, self.successes) = (0, self.successes.saturating_add(1)),
            Err(why) => {
                (self.failures, self.successes) = (self.failures.saturating_add(1), 0);
                self.why = why;
            }
        }
        match self.out {
            None if self.failures >= params.probe_failures => {
                self.out = Some(now);
                Heard::Fell
            }
            Some(since)
                if self.successes >= params.probe_successes
                    && now.saturating_duration_since(since) >= params.min_out =>
            {
                Heard::MayReturn
            }
            _ => Heard::Same,
        }
    }

    fn back(&mut self) {
        *self = Self::default();
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Table(BTreeMap<Key, Member>);

impl Table {
    /// What a probe of `who` has shown.
    pub(super) fn heard(
        &mut self,
        who: &Key,
        result: Result<(), String>,
        now: Instant,
        params: &FailureParams,
    ) -> Heard {
        let member = self.0.entry(who.clone()).or_default();
        member.heard(result, now, params)
    }

    /// It serves again.
    pub(super) fn back(&mut self, who: &Key) {
        if let Some(member) = self.0.get_mut(who) {
            member.back();
        }
    }

    /// It can't serve, and this is why.
    pub(super) fn can_not(&mut self, who: &Key, why: &str) {
        if let Some(member) = self.0.get_mut(who) {
            member.why = why.to_owned();
        }
    }

    /// It is no shard or spare any more.
    pub(super) fn forget(&mut self, who: &Key) {
        self.0.remove(who);
    }

    /// Why it is out; None: it is not.
    pub(super) fn out(&self, who: &Key) -> Option<&str> {
        let member = self.0.get(who)?;
        member.out.map(|_| member.why.as_str())
    }

    /// A spare that can take the place of `who` and is kept for it until [`Self::stands_in`]; None: it has one that serves, or there is
    /// none.
    pub(super) fn spare_for(&mut self, who: &Key, spares: &[ShardSaid]) -> Option<ShardSaid> {
        let stand_in = self.0.get(who).and_then(|member| member.stand_in.as_ref());
        let lost = stand_in.is_some_and(|spare| self.out(&key(spare)).is_some());
        if lost {
            self.stands_in(who, None);
        } else if stand_in.is_some() {
            return None;
        }
        let taken = |spare: &ShardSaid| {
            let all = self.0.values();
            all.flat_map(|member| [&member.stand_in, &member.chosen])
                .any(|other| other.as_ref() == Some(spare))
        };
        let is_free = |spare: &&ShardSaid| self.out(&key(spare)).is_none() && !taken(spare);
        let spare = spares.iter().find(is_free).cloned();
        if let Some(member) = self.0.get_mut(who) {
            member.chosen.clone_from(&spare);
        }
        spare
    }

    /// Who has the keys of `who` from now on.
    pub(super) fn stands_in(&mut self, who: &Key, spare: Option<ShardSaid>) {
        if let Some(member) = self.0.get_mut(who) {
            (member.stand_in, member.chosen) = (spare, None);
        }
    }

    /// Who has its keys; None: itself, or nobody.
    pub(super) fn stand_in(&self, who: &Key) -> Option<&ShardSaid> {
        self.0.get(who)?.stand_in.as_ref()
    }

    /// The shards as they are to be used now, with `said` configured.
    pub(super) fn in_force(&self, said: &Shards, on_failure: OnFailure) -> Result<Shards, String> {
        let out = |shard: &ShardSaid| self.out(&key(shard)).is_some();
        let mut all = said.all.clone();
        let mut away = Vec::new();
        let mut left_out = vec![false; all.len()];
        for (at, shard) in all.iter_mut().enumerate().filter(|(_, shard)| out(shard)) {
            match (on_failure, self.stand_in(&key(shard))) {
                (OnFailure::Rehash, _) => {
                    away.push(key(shard));
                    left_out[at] = true;
                }
                (OnFailure::Spare, Some(spare)) => {
                    away.push(key(shard));
                    shard.server = spare.server.clone();
                }
                (OnFailure::Spare, None) | (OnFailure::FailFast, _) => {}
            }
        }
        // With none left it is the whole one, and nothing goes by it.
        let ring = match said.ring.without(|at| left_out[at]) {
            Some(ring) => ring,
            None => said.ring.without(|_| false).ok_or("there is no shard")?,
        };
        Ok(Shards {
            all,
            ring,
            left_out,
            away,
        })
    }
}

#[cfg(test)]
#[path = "failure_tests.rs"]
mod tests;
