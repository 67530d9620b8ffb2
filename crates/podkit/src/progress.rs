//! What pulls show: bars on a terminal, plain lines elsewhere, on standard error.

use std::collections::{BTreeMap, HashMap};
use std::io::IsTerminal;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use podkit_pod::image::{Digest, Event, LayerState, Progress, Quiet, Underway};
use podkit_pod::runner::Screen;

/// Shows the progress of `image`.
pub(crate) fn of(image: &str, quiet: bool) -> Box<dyn Progress> {
    if quiet {
        Box::new(Quiet)
    } else if std::io::stderr().is_terminal() {
        let all = MultiProgress::new();
        Box::new(Pull {
            image: image.to_owned(),
            bars: Mutex::new(Bars::new(&all)),
            all,
        })
    } else {
        Box::new(Lines(image.to_owned()))
    }
}

/// What shows the pulls of pods; none: standard error is no terminal.
pub(crate) fn of_pods() -> Option<Arc<dyn Screen>> {
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
    of: HashMap<Digest, ProgressBar>,
}

impl Bars {
    fn new(all: &MultiProgress) -> Self {
        let (all, of) = (all.clone(), HashMap::new());
        Self { all, of }
    }

    fn found(&mut self, layers: Vec<(Digest, u64)>) {
        let style = ProgressStyle::with_template(
            "{prefix}: {msg:<16} [{bar:30}] {bytes:>10}/{total_bytes:<10}",
        );
        for (digest, size) in layers {
            let bar = ProgressBar::new(size).with_prefix(digest.short().to_owned());
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

/// A bar for each image that pods pull, below the lines of the output; the same image of two pods has one.
///
/// The terminal may be stopped (Ctrl-S), and then whoever draws waits. So only a thread of its own and the ones that write the output
/// draw.
#[derive(Debug)]
struct Below(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    wanted: Mutex<Wanted>,
    /// Told when something else is wanted.
    changed: Condvar,
    /// Held while something is drawn.
    drawn: Mutex<Drawn>,
}

#[derive(Debug, Default)]
struct Wanted {
    /// By pod.
    pulls: BTreeMap<String, Vec<Underway>>,
    /// And not drawn yet.
    stale: bool,
    /// There is a thread that draws.
    drawer: bool,
}

#[derive(Debug)]
struct Drawn {
    all: MultiProgress,
    bars: BTreeMap<String, ProgressBar>,
}

impl Below {
    fn new(target: ProgressDrawTarget) -> Self {
        Self(Arc::new(Shared {
            wanted: Mutex::default(),
            changed: Condvar::new(),
            drawn: Mutex::new(Drawn {
                all: MultiProgress::with_draw_target(target),
                bars: BTreeMap::new(),
            }),
        }))
    }
}

impl Shared {
    fn draw_on(&self) {
        loop {
            let wanted = lock(&self.wanted);
            let changed = self.changed.wait_while(wanted, |wanted| !wanted.stale);
            drop(changed);
            lock(&self.drawn).update(&self.wanted);
        }
    }
}

impl Drawn {
    /// Draws what is wanted now.
    fn update(&mut self, wanted: &Mutex<Wanted>) {
        let mut wanted = lock(wanted);
        if !std::mem::take(&mut wanted.stale) {
            return;
        }
        let mut images: BTreeMap<String, Underway> = BTreeMap::new();
        for pull in wanted.pulls.values().flatten() {
            let image = images.entry(pull.image.clone());
            let shown = image.or_insert_with(|| pull.clone());
            // Whoever waits for another's pull has received nothing itself.
            shown.received = shown.received.max(pull.received);
        }
        drop(wanted);
        let all = &self.all;
        self.bars.retain(|image, bar| {
            let stays = images.contains_key(image);
            if !stays {
                bar.finish_and_clear();
                all.remove(bar);
            }
            stays
        });
        for (image, pull) in images {
            let bar = self.bars.entry(image);
            let bar = bar.or_insert_with_key(|image| all.add(image_bar(image, pull.total)));
            bar.set_position(pull.received);
        }
    }
}

fn image_bar(image: &str, total: u64) -> ProgressBar {
    // What is too long for the line is cut.
    let style =
        ProgressStyle::with_template("Pulling [{bar:30}] {bytes:>10}/{total_bytes:<10} {wide_msg}");
    // It is the file's text.
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let image: String = image.chars().map(clean).collect();
    let bar = ProgressBar::new(total).with_message(image);
    match style {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

impl Screen for Below {
    fn show(&self, pod: &str, pulls: Vec<Underway>) {
        let mut wanted = lock(&self.0.wanted);
        let before = wanted.pulls.get(pod).map_or(&[][..], Vec::as_slice);
        if before == pulls {
            return;
        }
        match pulls.is_empty() {
            true => wanted.pulls.remove(pod),
            false => wanted.pulls.insert(pod.to_owned(), pulls),
        };
        wanted.stale = true;
        if !wanted.drawer {
            let shared = Arc::clone(&self.0);
            let drawer = std::thread::Builder::new().name("bars".to_owned());
            // Without it they are drawn whenever a line is.
            wanted.drawer = drawer.spawn(move || shared.draw_on()).is_ok();
        }
        self.0.changed.notify_one();
    }

    fn aside(&self, write: &mut dyn FnMut()) {
        let mut drawn = lock(&self.0.drawn);
        drawn.update(&self.0.wanted);
        drawn.all.suspend(write);
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
