//! The run that checks and exits.

use std::cell::RefCell;
use std::io::Write as _;
use std::rc::Rc;
use std::time::Duration;

use podkit_dataplane::module::{Once, Section, Service};
use podkit_foundation::error::Failure;
use tokio::time::Instant;

use super::Check;
use crate::metrics::scrape::Member;

/// A check, and the sources that it asks.
pub(crate) struct Checking {
    /// What `once` takes.
    work: RefCell<Option<(Check, Rc<[Member]>)>>,
    /// How long the sources may take.
    time: Duration,
}

impl Checking {
    pub(crate) fn new(check: Check, members: Rc<[Member]>, time: Duration) -> Self {
        Self {
            work: RefCell::new(Some((check, members))),
            time,
        }
    }
}

impl Service for Checking {
    fn once(&self) -> Option<Once> {
        let (check, members) = self.work.borrow_mut().take()?;
        let time = self.time;
        Some(Box::pin(async move {
            let checked = check.run(&members, Instant::now() + time).await;
            if !checked.unknown.is_empty() {
                return Err(Failure::Runtime(format!(
                    "what a database says is known from its answer only: {}",
                    checked.unknown.join("; ")
                )));
            }
            let mut lines = checked.lines;
            if checked.missing == 0 {
                lines = format!("all {} names are there\n", checked.names);
            }
            let written = std::io::stdout().write_all(lines.as_bytes());
            written.map_err(|error| Failure::runtime("writing to standard output", error))?;
            match checked.missing {
                0 => Ok(()),
                missing => Err(Failure::Runtime(format!(
                    "{missing} of {} names are missing",
                    checked.names
                ))),
            }
        }))
    }

    fn start(self: Rc<Self>) -> Result<(), Failure> {
        Ok(())
    }

    fn reload(&self) -> Result<(), String> {
        Ok(())
    }

    fn page(&self) -> Vec<Section> {
        Vec::new()
    }
}
