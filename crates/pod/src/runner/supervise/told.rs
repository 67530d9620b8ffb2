//! What a pod tells: to who started it, to those who ask, and in its files.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::Supervisor;
use crate::runner::addresses::addresses;
use crate::runner::layout::{replace, replace_private};
use crate::runner::machine::{Event, Id, State};
use crate::runner::output::Item;
use crate::runner::state;

impl Supervisor {
    /// Shows an event, and keeps it for those who ask.
    pub(super) fn tell(&self, event: &Event) {
        if !event.again {
            self.output.show(&Item::Event(event));
        }
        self.board
            .tell(event.warning, event.reason, event.container, &event.message);
    }

    /// Shows a warning, once.
    pub(super) fn warn(&mut self, message: &str) {
        if !self.warned.iter().any(|warned| warned == message) {
            self.output.show(&Item::Warning { message });
            if self.output.is_none() {
                // Where a detached pod's warnings are looked for.
                tracing::warn!("{message}");
            }
            self.warned.push(message.to_owned());
        }
    }

    pub(super) fn show_addresses(&self) {
        for address in addresses(&self.ground.plan(), self.publisher.published()) {
            self.output.show(&Item::Address {
                container: &address.container,
                url: &address.url,
                name: address.name.as_deref(),
            });
        }
    }

    pub(super) fn write_state(&mut self) {
        let ground = &self.ground;
        let plan = &ground.plan();
        let pid = |id: Id| Some(self.running[id].as_ref()?.process.pid());
        let pod = self
            .object
            .json(plan, &self.machine, &pid, SystemTime::now());
        let text: Arc<str> = pod.to_string().into();
        written(
            &ground.paths.state(),
            replace_private(&ground.paths.state(), text.as_bytes()),
        );
        self.board.show(text);
        if ground.anyone_shares_state() {
            let running = plan
                .containers
                .iter()
                .enumerate()
                .filter_map(|(id, container)| {
                    let status = self.machine.status(id);
                    let State::Running { since } = status.state else {
                        return None;
                    };
                    Some(state::Running {
                        name: &container.name,
                        pid: self.running[id].as_ref()?.process.pid_in_pod()?,
                        restarts: status.restarts,
                        started: since,
                    })
                });
            let json = state::pod_json(plan, running);
            let path = ground.paths.shared().join(state::POD_JSON);
            written(&path, replace(&path, json.to_string().as_bytes()));
        }
    }
}

fn written(path: &Path, result: std::io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(path = %path.display(), %error, "the pod's state could not be written");
    }
}
