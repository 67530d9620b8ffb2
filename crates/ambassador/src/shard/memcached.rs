//! `--protocol memcached`.

use std::rc::Rc;

use podkit_dataplane::memcache::{Node, Router};

use super::hot::Sampler;
use super::members::Members;

/// The shards of one worker.
pub(super) struct Local(pub(super) Rc<Members<Rc<Node>>>, pub(super) Option<Sampler>);

impl Router for Local {
    fn follow(&self) {
        self.0.follow();
    }

    fn count(&self) -> usize {
        self.0.state().len()
    }

    fn is_there(&self, at: usize) -> bool {
        self.0.state().is_there(at)
    }

    fn place(&self, key: &[u8]) -> usize {
        self.0.state().shards.ring.place(key)
    }

    fn node(&self, at: usize) -> Rc<Node> {
        self.0.state().send(at)
    }

    fn refused(&self) {
        self.0.refused();
    }

    fn is_due(&self) -> bool {
        self.1.as_ref().is_some_and(Sampler::is_due)
    }

    fn saw(&self, key: &[u8]) {
        if let Some(hot) = &self.1 {
            hot.add(key);
        }
    }
}
