//! Pulls that are shown on the terminal below the lines of the output.

use std::fmt::Debug;

use crate::image::Underway;

/// What draws them: the caller's business, as is whether there is a terminal at all.
pub trait Screen: Debug + Send + Sync {
    /// What this pod pulls now, in place of what was shown of it. Never waits for the terminal.
    fn show(&self, pod: &str, pulls: Vec<Underway>);

    /// Writes lines while no bar is in their way. Waits for the terminal.
    fn aside(&self, write: &mut dyn FnMut());
}
