//! What connections are asked before they are used, and what the primary says behind each batch of writes.

use std::sync::Arc;

use podkit_dataplane::resp::Watch;
use podkit_dataplane::resp::scan::{elements, integer, text};

use super::fence::place;
use super::roles::Said;
use super::topology::{Member, Shared};

const INFO: &[u8] = b"*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n";
const READONLY: &[u8] = b"*1\r\n$8\r\nREADONLY\r\n";
const ROLE: &[u8] = b"*1\r\n$4\r\nROLE\r\n";

/// The connections to the primary of a term.
#[derive(Debug)]
pub(super) struct OfPrimary {
    pub(super) shared: Arc<Shared>,
    pub(super) member: Arc<Member>,
    pub(super) term: u64,
    pub(super) id: String,
}

/// A client's own user may not be allowed to ask; that the server is the right one is known from podkit's. One that is busy with a script
/// takes nothing but the end of it, and is what it was.
fn may_not_say(reply: &[u8]) -> bool {
    let codes: [&[u8]; 3] = [b"-NOPERM ", b"-NOAUTH ", b"-BUSY "];
    codes.iter().any(|code| reply.starts_with(code))
}

fn read(reply: &[u8]) -> Result<Said, String> {
    Said::parse(reply).ok_or_else(|| {
        let line = String::from_utf8_lossy(reply);
        format!(
            "it does not say its role: {}",
            line.lines().next().unwrap_or_default()
        )
    })
}

/// The offset in the reply to ROLE of a primary.
fn offset(reply: &[u8]) -> Option<u64> {
    let parts = elements(reply)?;
    let is = |at: usize, name: &[u8]| {
        parts
            .get(at)
            .is_some_and(|part| text(&reply[part.clone()]) == Some(name))
    };
    if !is(0, b"master") {
        return None;
    }
    u64::try_from(integer(&reply[parts.get(1)?.clone()])?).ok()
}

impl Watch for OfPrimary {
    fn question(&self) -> &[u8] {
        INFO
    }

    fn accepts(&self, reply: &[u8]) -> Result<(), String> {
        if may_not_say(reply) {
            return Ok(());
        }
        let said = read(reply)?;
        if said.primary && said.id == self.id {
            return Ok(());
        }
        self.shared.poke.notify_waiters();
        match said.primary {
            false => Err(format!("{} is a replica now", self.member.name)),
            true => Err(format!("{} has begun anew", self.member.name)),
        }
    }

    fn behind(&self) -> &[u8] {
        ROLE
    }

    fn settled(&self, marked: Vec<u16>, reply: Option<&[u8]>) {
        let offset = reply.and_then(offset);
        let fences = &self.shared.fences;
        fences.settle(&marked, offset.map(|offset| place(self.term, offset)));
        if offset.is_none() {
            if reply.is_some_and(|reply| !may_not_say(reply)) {
                self.shared.refuse(self.term);
            }
            self.shared.poke.notify_waiters();
        }
    }
}

/// The connections to a replica.
#[derive(Debug)]
pub(super) struct OfReplica {
    pub(super) shared: Arc<Shared>,
    pub(super) member: Arc<Member>,
}

impl Watch for OfReplica {
    /// Of a cluster, it sends others to its primary unless it is told that they only read.
    fn first(&self) -> Option<&[u8]> {
        (!self.shared.params.cluster.is_empty()).then_some(READONLY)
    }

    fn question(&self) -> &[u8] {
        INFO
    }

    /// What waits for the connection was sent here for what the replica said before: it must not be less now.
    fn accepts(&self, reply: &[u8]) -> Result<(), String> {
        if may_not_say(reply) {
            return Ok(());
        }
        let said = read(reply)?;
        let view = self.shared.view();
        let acked = self.member.acked();
        let here = place(view.term, said.offset);
        if acked > 0 && (said.primary || said.id != view.id || here < acked) {
            self.member.unfit();
            return Err(format!("{} has begun anew", self.member.name));
        }
        Ok(())
    }

    fn behind(&self) -> &[u8] {
        INFO
    }

    fn settled(&self, marked: Vec<u16>, _reply: Option<&[u8]>) {
        debug_assert!(marked.is_empty(), "nothing is written to a replica");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_is_that_of_a_primary() {
        let role = b"*3\r\n$6\r\nmaster\r\n:3129659\r\n*1\r\n*3\r\n$9\r\n127.0.0.1\r\n$4\r\n9001\r\n$7\r\n3129242\r\n";
        assert_eq!(offset(role), Some(3_129_659));
        assert_eq!(
            offset(b"*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:1\r\n$9\r\nconnected\r\n:7\r\n"),
            None
        );
        assert_eq!(offset(b"-NOPERM no\r\n"), None);
    }
}
