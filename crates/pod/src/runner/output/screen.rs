//! Pulls that are shown on the terminal below the lines of the output.

use std::fmt::Debug;
use std::sync::Arc;

use crate::image::Progress;

/// What draws them: the caller's business, as is whether there is a terminal at all.
pub trait Screen: Debug + Send + Sync {
    /// Shows the pull of this container's image, until its `end`. None of the calls that it gets may wait for the terminal, but for
    /// those of `event`, which come from the threads that pull.
    fn pull(&self, container: &str) -> Arc<dyn Progress>;

    /// Writes lines while no bar is in their way. Waits for the terminal.
    fn aside(&self, write: &mut dyn FnMut());
}
