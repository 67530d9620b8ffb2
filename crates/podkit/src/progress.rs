//! What a pull shows: bars on a terminal, plain lines elsewhere, on standard error.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use podkit_pod::image::{Digest, Event, LayerState, Progress};

/// Progress that can be taken off the screen.
pub(crate) trait Shown: Progress {
    /// The pull is over.
    fn end(&self) {}
}

/// Shows the progress of `image`.
pub(crate) fn of(image: &str, quiet: bool) -> Box<dyn Shown> {
    if quiet {
        Box::new(Nothing)
    } else if std::io::stderr().is_terminal() {
        Box::new(Bars {
            image: image.to_owned(),
            all: MultiProgress::new(),
            bars: Mutex::default(),
        })
    } else {
        Box::new(Lines(image.to_owned()))
    }
}

struct Nothing;

impl Progress for Nothing {
    fn event(&self, _: Event) {}
}

impl Shown for Nothing {}

struct Lines(String);

impl Progress for Lines {
    fn event(&self, event: Event) {
        match event {
            Event::Pulling => eprintln!("Pulling {}", self.0),
            Event::Layer { digest, state } => match state {
                LayerState::Present => eprintln!("{}: Already exists", digest.short()),
                LayerState::Done => eprintln!("{}: Pull complete", digest.short()),
                LayerState::Received(_) => {}
            },
            Event::Retry(line) => eprintln!("{line}"),
            Event::Found { .. } => {}
        }
    }
}

impl Shown for Lines {}

struct Bars {
    image: String,
    all: MultiProgress,
    bars: Mutex<HashMap<Digest, ProgressBar>>,
}

impl Bars {
    fn say(&self, line: &str) {
        // A terminal that is gone is no reason to stop.
        let _shown = self.all.println(line);
    }
}

impl Progress for Bars {
    fn event(&self, event: Event) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Pulling => self.say(&format!("Pulling {}", self.image)),
            Event::Found { layers } => {
                let style = ProgressStyle::with_template(
                    "{prefix}: {msg:<16} [{bar:30}] {bytes:>10}/{total_bytes:<10}",
                );
                for (digest, size) in layers {
                    let bar = ProgressBar::new(size).with_prefix(digest.short().to_owned());
                    if let Ok(style) = &style {
                        bar.set_style(style.clone().progress_chars("=> "));
                    }
                    bar.set_message("Waiting");
                    bars.entry(digest).or_insert_with(|| self.all.add(bar));
                }
            }
            Event::Layer { digest, state } => {
                let Some(bar) = bars.get(&digest) else { return };
                match state {
                    LayerState::Received(bytes) => {
                        bar.set_message("Downloading");
                        bar.set_position(bytes);
                    }
                    LayerState::Present => bar.finish_with_message("Already exists"),
                    LayerState::Done => bar.finish_with_message("Pull complete"),
                }
            }
            Event::Retry(line) => self.say(&line),
        }
    }
}

impl Shown for Bars {
    fn end(&self) {
        for bar in self
            .bars
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
        {
            if !bar.is_finished() {
                bar.abandon();
            }
        }
    }
}
