//! `--protocol memcached`.

use std::rc::Rc;

use podkit_dataplane::memcache::{Node, Router};

use super::members::Members;

impl Router for Members<Rc<Node>> {
    fn follow(&self) {
        Self::follow(self);
    }

    fn count(&self) -> usize {
        self.state().len()
    }

    fn place(&self, key: &[u8]) -> usize {
        self.state().shards.ring.place(key)
    }

    fn node(&self, at: usize) -> Rc<Node> {
        self.state().send(at)
    }

    fn refused(&self) {
        Self::refused(self);
    }
}
