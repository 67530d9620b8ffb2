//! What pulls show: bars on a terminal, plain lines elsewhere, on standard error.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use podkit_pod::image::{Digest, Event, LayerState, Progress, Quiet};
use podkit_pod::runner::Screen;

/// Shows the progress of `image`.
pub(crate) fn of(image: &str, quiet: bool) -> Box<dyn Progress> {
    if quiet {
        Box::new(Quiet)
    } else if std::io::stderr().is_terminal() {
        let all = MultiProgress::new();
        Box::new(Pull {
            image: image.to_owned(),
            bars: Mutex::new(Bars::new(&all, String::new())),
            all,
        })
    } else {
        Box::new(Lines(image.to_owned()))
    }
}

/// What shows the pulls of a pod that runs in the foreground; none: its standard error is no terminal.
pub(crate) fn of_pod() -> Option<Arc<dyn Screen>> {
    let terminal = std::io::stderr().is_terminal();
    terminal.then(|| Arc::new(Below::new(ProgressDrawTarget::stderr())) as Arc<dyn Screen>)
}

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

/// A bar for each layer of an image.
#[derive(Debug)]
struct Bars {
    all: MultiProgress,
    /// Before each layer's name.
    prefix: String,
    of: HashMap<Digest, ProgressBar>,
}

impl Bars {
    fn new(all: &MultiProgress, prefix: String) -> Self {
        let (all, of) = (all.clone(), HashMap::new());
        Self { all, prefix, of }
    }

    fn found(&mut self, layers: Vec<(Digest, u64)>) {
        let style = ProgressStyle::with_template(
            "{prefix}: {msg:<16} [{bar:30}] {bytes:>10}/{total_bytes:<10}",
        );
        for (digest, size) in layers {
            let prefix = format!("{}{}", self.prefix, digest.short());
            let bar = ProgressBar::new(size).with_prefix(prefix);
            if let Ok(style) = &style {
                bar.set_style(style.clone().progress_chars("=> "));
            }
            bar.set_message("Waiting");
            self.of.entry(digest).or_insert_with(|| self.all.add(bar));
        }
    }

    fn layer(&self, digest: &Digest, state: LayerState) {
        let Some(bar) = self.of.get(digest) else {
            return;
        };
        match state {
            LayerState::Received(bytes) => {
                bar.set_message("Downloading");
                bar.set_position(bytes);
            }
            LayerState::Present => bar.finish_with_message("Already exists"),
            LayerState::Done => bar.finish_with_message("Pull complete"),
        }
    }
}

/// `image pull`: the bars are all that there is to see, and stay.
struct Pull {
    image: String,
    all: MultiProgress,
    bars: Mutex<Bars>,
}

impl Pull {
    fn say(&self, line: &str) {
        // A terminal that is gone is no reason to stop.
        let _shown = self.all.println(line);
    }
}

impl Progress for Pull {
    fn event(&self, event: Event) {
        let mut bars = lock(&self.bars);
        match event {
            Event::Pulling => self.say(&format!("Pulling {}", self.image)),
            Event::Found { layers } => bars.found(layers),
            Event::Layer { digest, state } => bars.layer(&digest, state),
            Event::Retry(line) => self.say(&line),
        }
    }

    fn end(&self) {
        for bar in lock(&self.bars).of.values() {
            if !bar.is_finished() {
                bar.abandon();
            }
        }
    }
}

/// Bars below the lines of a pod's output, each pull's until it has ended.
///
/// The terminal may be stopped (Ctrl-S), and then whoever draws waits. So only the threads that pull and the one that writes the output
/// draw; the supervisor's own says that a pull has ended, and the next who draws takes its bars off.
#[derive(Debug)]
struct Below(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    all: MultiProgress,
    /// Held while something is drawn.
    pulls: Mutex<Vec<Arc<Drawn>>>,
}

#[derive(Debug)]
struct Drawn {
    bars: Mutex<Bars>,
    ended: std::sync::atomic::AtomicBool,
}

/// A pull that is drawn there.
struct Shows {
    shared: Arc<Shared>,
    drawn: Arc<Drawn>,
}

impl Below {
    fn new(target: ProgressDrawTarget) -> Self {
        Self(Arc::new(Shared {
            all: MultiProgress::with_draw_target(target),
            pulls: Mutex::default(),
        }))
    }
}

impl Shared {
    /// Takes off what has ended.
    fn sweep(&self) -> MutexGuard<'_, Vec<Arc<Drawn>>> {
        let mut pulls = lock(&self.pulls);
        pulls.retain(|pull| {
            let ended = pull.ended.load(std::sync::atomic::Ordering::SeqCst);
            if ended {
                for (_, bar) in lock(&pull.bars).of.drain() {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
            }
            !ended
        });
        pulls
    }
}

impl Screen for Below {
    fn pull(&self, container: &str) -> Arc<dyn Progress> {
        let prefix = format!("{container} ");
        Arc::new(Shows {
            shared: Arc::clone(&self.0),
            drawn: Arc::new(Drawn {
                bars: Mutex::new(Bars::new(&self.0.all, prefix)),
                ended: false.into(),
            }),
        })
    }

    fn aside(&self, write: &mut dyn FnMut()) {
        let _drawing = self.0.sweep();
        self.0.all.suspend(write);
    }
}

impl Progress for Shows {
    fn event(&self, event: Event) {
        let mut pulls = self.shared.sweep();
        if self.drawn.ended.load(std::sync::atomic::Ordering::SeqCst) {
            return;
        }
        match event {
            Event::Found { layers } => {
                lock(&self.drawn.bars).found(layers);
                pulls.push(Arc::clone(&self.drawn));
            }
            Event::Layer { digest, state } => lock(&self.drawn.bars).layer(&digest, state),
            // The first is one of the lines; the second is no news while it goes on.
            Event::Pulling | Event::Retry(_) => {}
        }
    }

    fn end(&self) {
        self.drawn
            .ended
            .store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
