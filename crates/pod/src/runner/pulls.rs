//! Who looks at the pulls of pods, and has a screen to show them on: the supervisor itself, or a process that asks it.

use std::path::Path;

use super::output::Screen;
use crate::control::{Client, Request};
use crate::image::{Pulls, Underway};

/// Shows what this process pulls for a pod.
pub(super) async fn show_own(pulls: &Pulls, pod: &str, screen: &dyn Screen) {
    let mut look = pulls.look();
    loop {
        screen.show(pod, look.underway());
        look.changed().await;
    }
}

/// Shows what a pod pulls, as its supervisor tells, for as long as that does. `run`: see [`Client::ask`]. Whoever gives it up takes
/// off what is shown.
pub(super) async fn show_told(run: &Path, pod: &str, screen: &dyn Screen) {
    let asked = Client::ask(run, &Request::Pulls { watch: true }).await;
    // A pod goes on without them: there is nothing to be told of an error.
    if let Ok((_client, mut reply)) = asked {
        while let Ok(Some(mut told)) = reply.object().await {
            let pulls: Vec<Underway> =
                serde_json::from_value(told["pulls"].take()).unwrap_or_default();
            screen.show(pod, pulls);
        }
    }
    screen.show(pod, Vec::new());
}
