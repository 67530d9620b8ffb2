//! By which of the connections that clients share a command goes.
//!
//! A script may keep a server busy for longer than `busy-reply-threshold`. Redis then answers what others ask with `BUSY`, until the script
//! ends or is killed (`SCRIPT KILL`): but nothing that is behind the script on its connection. So scripts have a connection of their own, and
//! another one for those that would be behind a script that takes long.
//!
//! What a client sends is done in its order all the same: a script waits until all that its client sent before it was answered, and what
//! comes behind a script goes its way until all is answered. For who sends no scripts nothing changes.

/// A shared connection of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// Of all that is no script.
    #[default]
    Common,
    /// Of scripts.
    Scripts,
    /// Of scripts, while the other one waits for one that takes long.
    Beside,
}

impl Way {
    /// By which the next command of a client goes: None when that has to wait. `last`: the way of the commands before it, of which `waiting` have
    /// no reply yet.
    #[inline]
    pub(super) fn of(is_script: bool, last: Self, waiting: usize) -> Option<Self> {
        match (waiting, last, is_script) {
            (0, _, true) => Some(Self::Scripts),
            (0, _, false) => Some(Self::Common),
            (_, Self::Common, true) => None,
            (_, last, _) => Some(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_commands_are_never_on_two_ways_at_once() {
        use Way::{Beside, Common, Scripts};
        for last in [Common, Scripts, Beside] {
            assert_eq!(Way::of(false, last, 0), Some(Common));
            assert_eq!(Way::of(true, last, 0), Some(Scripts));
            assert_eq!(Way::of(false, last, 1), Some(last));
        }
        assert_eq!(Way::of(true, Common, 1), None);
        assert_eq!(Way::of(true, Scripts, 1), Some(Scripts));
        assert_eq!(Way::of(true, Beside, 7), Some(Beside));
    }
}
