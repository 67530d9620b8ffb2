//! CLIENT TRACKING over several servers: who keeps values of its own is told when they are not the servers' any more.
//!
//! Connections that begin with `CLIENT TRACKING ON` are shared by the clients of a worker that want that and were greeted alike. So a server tells podkit
//! of each key that any of them has read, and podkit tells them all: one that has not got it has nothing to forget. What is said of a key is
//! put behind the replies to all that a client has asked by then, one of which may still have the former value.
//!
//! What can't be told any more is forgotten as a whole, as after FLUSHALL: when a connection was lost, when there may be other servers, and when something
//! was read on a connection of the client's own.

use std::cell::RefCell;
use std::rc::Rc;

use super::lane::Greeting;
use super::reply::Outbox;

/// All that is kept is to be forgotten.
pub(super) const FORGET: &[u8] = b">2\r\n$10\r\ninvalidate\r\n_\r\n";

/// What a connection for those begins with.
pub(super) const BEGIN: [&[u8]; 3] = [b"CLIENT", b"TRACKING", b"ON"];

thread_local! {
    static TRACKERS: RefCell<Vec<(Greeting, Rc<Outbox>)>> = const { RefCell::new(Vec::new()) };
}

/// A client that is told. Ends with it.
pub(super) struct Tracker(Rc<Outbox>);

impl Tracker {
    /// Its commands go by connections that begin with this.
    pub(super) fn new(greeting: Greeting, outbox: &Rc<Outbox>) -> Self {
        TRACKERS.with_borrow_mut(|all| all.push((greeting, Rc::clone(outbox))));
        Self(Rc::clone(outbox))
    }

    /// They go by others now: what was read by the former ones is not told of any more.
    pub(super) fn greeted(&self, greeting: &Greeting) {
        TRACKERS.with_borrow_mut(|all| {
            let mut mine = all
                .iter_mut()
                .filter(|(_, outbox)| Rc::ptr_eq(outbox, &self.0));
            if let Some((of, outbox)) = mine.next().filter(|(of, _)| of != greeting) {
                of.clone_from(greeting);
                outbox.behind(FORGET);
            }
        });
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        TRACKERS.with_borrow_mut(|all| all.retain(|(_, outbox)| !Rc::ptr_eq(outbox, &self.0)));
    }
}

/// A connection that began with this says something by itself.
pub(super) fn tell(greeting: &Greeting, said: &[u8]) {
    TRACKERS.with_borrow(|all| {
        let told = all.iter().filter(|(of, _)| of == greeting);
        told.for_each(|(_, outbox)| outbox.behind(said));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_were_greeted_so_are_told_behind_what_they_asked() {
        let said = |outbox: &Outbox| {
            outbox.with(|out| {
                let out = out.take();
                out.map_or(Vec::new(), |out| out.filled().to_vec())
            })
        };
        let greeting = |database| Greeting {
            resp3: true,
            tracks: true,
            database,
            ..Greeting::default()
        };
        let [one, two, three] = [(); 3].map(|()| Rc::new(Outbox::default()));
        let trackers = [(&one, 0), (&two, 0), (&three, 1)];
        let [first, second, _third] =
            trackers.map(|(outbox, database)| Tracker::new(greeting(database), outbox));
        let asked = one.ticket();
        tell(&greeting(0), FORGET);
        assert_eq!(said(&one), b"");
        asked.reply(b"+old\r\n");
        assert_eq!(said(&one), [b"+old\r\n", FORGET].concat());
        assert_eq!((said(&two), said(&three)), (FORGET.to_vec(), Vec::new()));
        second.greeted(&greeting(0));
        assert_eq!(said(&two), b"");
        second.greeted(&greeting(1));
        assert_eq!(said(&two), FORGET);
        drop(first);
        tell(&greeting(0), FORGET);
        tell(&greeting(1), FORGET);
        assert_eq!((said(&one), said(&two)), (Vec::new(), FORGET.to_vec()));
        assert_eq!(said(&three), FORGET);
    }
}
