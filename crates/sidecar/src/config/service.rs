//! The module: parameters in, the thread that follows the sources, and what people see of it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::SystemTime;

use podkit_dataplane::module::{Once, Section, Service, Setup};
use podkit_foundation::error::Failure;
use podkit_foundation::params::{ParamError, ParamSet as _, Values};
use tokio::sync::watch;

use super::metrics::Counts;
use super::params::Params;
use super::sync::{Shared, Sync};
use crate::proxy::Proxies;
use crate::publish::{Client, Engine, Place, PublishParams, PublishSettings};

/// Reads the parameters and opens the place.
pub(super) fn build(values: &Values, setup: &Setup) -> Result<Rc<dyn Service>, Failure> {
    let params = Params::from_values(values)?;
    params.check()?;
    let proxies = Proxies::of_the_environment().map_err(Failure::Usage)?;
    let client = Client::new(params.origin_files(), proxies);
    let publish = PublishParams::from_values(values)?;
    publish.check()?;
    let place = match publish.in_place {
        true => Place::InPlace(params.out.clone()),
        false => Place::Data(params.out.clone()),
    };
    if params.out.is_file() {
        let why = format!("{} is a file; expected a directory", params.out.display());
        return Err(ParamError::new("out", why).into());
    }
    let settings = PublishSettings {
        place,
        params: publish,
    };
    let engine =
        Engine::open(settings).map_err(|why| Failure::runtime("--out (PODKIT_OUT)", why))?;
    let counts = Counts::new(&setup.metrics, &params.source);
    let (round, anew) = watch::channel(0);
    let once = params.once;
    let out = params.out.display().to_string();
    let sync = Sync::new(params, engine, counts, setup, client, anew);
    Ok(Rc::new(Config {
        shared: sync.shared.clone(),
        sync: RefCell::new(Some(sync)),
        once,
        out,
        round,
    }))
}

/// The running module.
struct Config {
    shared: Shared,
    /// What `start` or `once` takes.
    sync: RefCell<Option<Sync>>,
    once: bool,
    out: String,
    /// How often everything was asked to be read anew.
    round: watch::Sender<u64>,
}

impl Service for Config {
    fn start(self: Rc<Self>) -> Result<(), Failure> {
        if let Some(sync) = self.sync.borrow_mut().take() {
            let started = sync.start();
            started.map_err(|error| Failure::runtime("starting the thread that follows", error))?;
        }
        Ok(())
    }

    fn once(&self) -> Option<Once> {
        if !self.once {
            return None;
        }
        let sync = self.sync.borrow_mut().take()?;
        Some(Box::pin(async move {
            let ended = sync.start();
            let ended = ended
                .map_err(|error| Failure::runtime("starting the thread that follows", error))?;
            match ended.await {
                Ok(once) => once.map_err(Failure::Runtime),
                Err(_) => Err(Failure::Runtime(
                    "the thread that follows has ended".to_owned(),
                )),
            }
        }))
    }

    fn reload(&self) -> Result<(), String> {
        // Every source is asked anew; what comes of it is told as of any change.
        self.round.send_modify(|round| *round += 1);
        Ok(())
    }

    fn checks(&self) -> Vec<(&'static str, Result<(), String>)> {
        let state = self.shared.lock();
        let published = match &state.version {
            Some(_) => Ok(()),
            None => {
                let trouble = state
                    .sources
                    .iter()
                    .find_map(|source| source.trouble.as_ref());
                let why = state.refused.as_ref().or(trouble);
                Err(why.map_or_else(
                    || "nothing is published yet".to_owned(),
                    |why| format!("nothing is published: {why}"),
                ))
            }
        };
        vec![("published", published)]
    }

    fn page(&self) -> Vec<Section> {
        let state = self.shared.lock();
        let since = |at: Option<SystemTime>| at.map_or_else(|| "never".to_owned(), ago);
        let mut rows = vec![
            vec!["Directory".to_owned(), self.out.clone()],
            vec![
                "Version".to_owned(),
                state.version.clone().unwrap_or_else(|| "none".to_owned()),
            ],
            vec!["Published".to_owned(), since(state.since)],
        ];
        rows.extend(
            state
                .files
                .map(|files| vec!["Files".to_owned(), files.to_string()]),
        );
        let refused = state.refused.as_ref();
        let published = Section {
            title: "Published".to_owned(),
            columns: Vec::new(),
            rows,
            alert: refused.map(|why| format!("The latest state of the sources is refused: {why}")),
        };
        let names = ["Source", "Last answer", "Last change", "Trouble"];
        let sources = Section {
            title: "Sources".to_owned(),
            columns: names.map(str::to_owned).to_vec(),
            rows: state
                .sources
                .iter()
                .map(|source| {
                    vec![
                        source.name.clone(),
                        since(source.contact),
                        since(source.change),
                        source.trouble.clone().unwrap_or_default(),
                    ]
                })
                .collect(),
            alert: None,
        };
        vec![published, sources]
    }
}

fn ago(at: SystemTime) -> String {
    let seconds = at.elapsed().unwrap_or_default().as_secs();
    let ago = humantime::format_duration(std::time::Duration::from_secs(seconds));
    format!("{ago} ago ({})", humantime::format_rfc3339_seconds(at))
}
