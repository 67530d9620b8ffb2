//! The pulls that are under way, for whoever shows them: how much of each image is here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Digest, Event, LayerState, Progress};

/// Between two looks: bytes come all the time, and nobody sees so much.
const PERIOD: Duration = Duration::from_millis(50);

/// An image on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Underway {
    /// What it is called.
    pub image: String,
    /// Bytes of its layers that are here.
    pub received: u64,
    /// Bytes of all its layers.
    pub total: u64,
}

/// All that a pod pulls. Only the latest matters: whoever looks slowly misses what was in between. Clones share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pulls(Arc<watch::Sender<Table>>);

#[derive(Debug, Default)]
struct Table {
    /// Counts them.
    begun: u64,
    of: BTreeMap<u64, Pull>,
}

#[derive(Debug)]
struct Pull {
    image: String,
    /// Bytes that are here, and all; empty while the image isn't known.
    layers: BTreeMap<Digest, (u64, u64)>,
}

impl Pulls {
    /// What tells of the pull of an image, until its `end`.
    pub(crate) fn begin(&self, image: String) -> impl Progress + use<> {
        let mut number = 0;
        self.0.send_modify(|table| {
            table.begun += 1;
            number = table.begun;
            let layers = BTreeMap::new();
            table.of.insert(number, Pull { image, layers });
        });
        One {
            pulls: self.clone(),
            number,
        }
    }

    pub(crate) fn look(&self) -> Look {
        Look {
            table: self.0.subscribe(),
            next: Instant::now(),
        }
    }
}

/// Of one who looks at them.
#[derive(Debug)]
pub(crate) struct Look {
    table: watch::Receiver<Table>,
    /// Not before that there is another.
    next: Instant,
}

impl Look {
    /// Those whose size is known, in the order in which they began.
    pub(crate) fn underway(&mut self) -> Vec<Underway> {
        self.next = Instant::now() + PERIOD;
        let table = self.table.borrow_and_update();
        let known = table.of.values().filter(|pull| !pull.layers.is_empty());
        known.map(Pull::underway).collect()
    }

    /// Returns when there is something else to be seen.
    pub(crate) async fn changed(&mut self) {
        if self.table.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep_until(self.next).await;
    }
}

impl Pull {
    fn underway(&self) -> Underway {
        Underway {
            image: self.image.clone(),
            received: self.layers.values().map(|(received, _)| received).sum(),
            total: self.layers.values().map(|(_, total)| total).sum(),
        }
    }
}

struct One {
    pulls: Pulls,
    number: u64,
}

impl Progress for One {
    fn event(&self, event: Event) {
        self.pulls.0.send_if_modified(|table| {
            let Some(pull) = table.of.get_mut(&self.number) else {
                return false;
            };
            match event {
                Event::Found { layers } => {
                    let layers = layers.into_iter();
                    pull.layers = layers.map(|(digest, size)| (digest, (0, size))).collect();
                    true
                }
                Event::Layer { digest, state } => {
                    let Some((received, total)) = pull.layers.get_mut(&digest) else {
                        return false;
                    };
                    *received = match state {
                        LayerState::Received(bytes) => bytes.min(*total),
                        LayerState::Present | LayerState::Done => *total,
                    };
                    true
                }
                // People are told of the first, and the second is no news while it goes on.
                Event::Pulling | Event::Retry(_) => false,
            }
        });
    }

    fn end(&self) {
        self.pulls
            .0
            .send_if_modified(|table| table.of.remove(&self.number).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(c: char) -> Digest {
        let text = format!("sha256:{}", c.to_string().repeat(64));
        text.parse().unwrap()
    }

    #[test]
    fn what_is_here_of_an_image_is_the_sum_of_its_layers() {
        let pulls = Pulls::default();
        let (one, other) = (pulls.begin("a:1".into()), pulls.begin("b:1".into()));
        assert_eq!(pulls.look().underway(), []);
        let layers = vec![(digest('a'), 10), (digest('b'), 5), (digest('a'), 10)];
        one.event(Event::Found { layers });
        let layer = |c, state| Event::Layer {
            digest: digest(c),
            state,
        };
        one.event(layer('a', LayerState::Received(3)));
        one.event(layer('b', LayerState::Present));
        one.event(layer('c', LayerState::Done));
        let underway = |received| Underway {
            image: "a:1".into(),
            received,
            total: 15,
        };
        assert_eq!(pulls.look().underway(), [underway(8)]);
        one.event(layer('a', LayerState::Done));
        assert_eq!(pulls.look().underway(), [underway(15)]);
        one.end();
        // What comes after its end is of no meaning.
        one.event(layer('a', LayerState::Received(1)));
        assert_eq!(pulls.look().underway(), []);
        let layers = vec![(digest('c'), 1)];
        other.event(Event::Found { layers });
        assert_eq!(pulls.look().underway().len(), 1);
    }
}
