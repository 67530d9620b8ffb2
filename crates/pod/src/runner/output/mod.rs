//! What the foreground shows: one stream, on standard output, of what is said of the pod and by its containers.
//!
//! `render` makes lines, for people or as JSON; `queue` brings them out. Container logs wait when the queue is full, so
//! that a container that floods is slowed by its own pipe; what the runner has to say never waits.

mod queue;
mod render;
mod screen;
#[cfg(test)]
mod tests;

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::SystemTime;

pub(crate) use queue::Queue;
use render::Renderer;
pub(crate) use render::harmless;
pub use screen::Screen;

use super::OutputFormat;
use super::machine::{ContainerStatus, Event, Phase};
use crate::plan::PodPlan;

/// Which of a container's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Whether something became ready, or ceased to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Ready,
    /// And nobody has asked for it.
    NotReady,
    Neither,
}

impl Turn {
    pub(crate) fn new(was_ready: bool, ready: bool, stopping: bool) -> Self {
        match (was_ready, ready) {
            (false, true) => Self::Ready,
            (true, false) if !stopping => Self::NotReady,
            _ => Self::Neither,
        }
    }
}

/// Something to show.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    /// A line of a container, without its line end; `partial`: its end has not come yet.
    Log {
        container: usize,
        stream: Stream,
        line: &'a [u8],
        partial: bool,
    },
    /// A Kubernetes event.
    Event(&'a Event),
    /// A container's state has changed.
    Container {
        container: usize,
        status: &'a ContainerStatus,
        /// What that means for who waits for it.
        turn: Turn,
    },
    /// The pod's phase or readiness has changed.
    Pod {
        phase: Phase,
        ready: bool,
        turn: Turn,
    },
    /// A published port.
    Address {
        container: &'a str,
        /// `https://127.0.0.1:8443`, or without a scheme for what is not TCP.
        url: &'a str,
        name: Option<&'a str>,
    },
    /// Something asked for that this machine can't do.
    Warning { message: &'a str },
    /// The last one.
    End { phase: Phase, exit_code: u8 },
}

/// Where items go. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// None: nobody looks.
    shown: Option<Shown>,
}

#[derive(Debug, Clone)]
struct Shown {
    queue: Queue,
    renderer: Arc<Renderer>,
}

impl Output {
    /// Output on standard output. With `prefix_pod` the pod's name stands before the container's: several pods share
    /// the terminal. `screen`: what is shown below. Call [`Output::finish`] at the end.
    pub(crate) fn new(
        plan: &PodPlan,
        format: OutputFormat,
        prefix_pod: bool,
        screen: Option<Arc<dyn Screen>>,
    ) -> Self {
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let renderer = Renderer::new(plan, format, terminal, color, prefix_pod);
        Self {
            shown: Some(Shown {
                queue: Queue::to_stdout(screen),
                renderer: Arc::new(renderer),
            }),
        }
    }

    /// Output that nobody sees.
    pub(crate) fn none() -> Self {
        Self { shown: None }
    }

    /// Whether nobody sees it.
    pub(crate) fn is_none(&self) -> bool {
        self.shown.is_none()
    }

    /// One more container, after the others.
    pub(crate) fn add(&self, container: &str) {
        if let Some(shown) = &self.shown {
            shown.renderer.add(container);
        }
    }

    /// Shows `item`, now.
    pub(crate) fn show(&self, item: &Item<'_>) {
        if let Some(shown) = &self.shown {
            let mut line = Vec::new();
            shown.renderer.render(SystemTime::now(), item, &mut line);
            shown.queue.push(&line);
        }
    }

    /// Shows many lines of a log in one go.
    pub(crate) fn show_all<'a>(&self, items: impl Iterator<Item = Item<'a>>) {
        if let Some(shown) = &self.shown {
            let (now, mut lines) = (SystemTime::now(), Vec::new());
            for item in items {
                shown.renderer.render(now, &item, &mut lines);
            }
            shown.queue.push(&lines);
        }
    }

    /// Returns when a log may be read.
    pub(crate) async fn room(&self) {
        if let Some(shown) = &self.shown {
            shown.queue.room().await;
        }
    }

    /// Shows no more, and waits until all is written, for at most `patience`.
    pub(crate) fn finish(&self, patience: std::time::Duration) {
        if let Some(shown) = &self.shown {
            shown.queue.finish(patience);
        }
    }
}
