//! What the admin server answers: the contract's endpoints and a module's own, as a function of what was asked and
//! by whom. No socket here.

use std::rc::Rc;
use std::time::Instant;

use podkit_foundation::lifecycle::{Lifecycle, Phase};
use podkit_foundation::params::{Origin, Values};
use podkit_foundation::surface::ModuleSpec;
use podkit_foundation::telemetry::metrics::{Format, Registry};
use serde_json::json;

use super::page::{self, Heading};
use crate::module::{Answer, Query, Route, Section, Service};

/// Who asks. Pages and process data are for the pod's own loopback unless `--admin-open`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// On the loopback, or `--admin-open`.
    Near,
    /// On the pod's address.
    Far,
    /// On `--admin-socket`: may change state.
    Socket,
}

/// What a request on `--admin-socket`, a signal or another process makes the driver do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// As SIGHUP.
    Reload,
    /// As SIGTERM.
    Drain,
    /// Another process has the listeners and serves: as SIGTERM.
    HandOver,
}

/// All that the endpoints look at.
pub(crate) struct Endpoints {
    pub(crate) spec: &'static ModuleSpec,
    pub(crate) service: Rc<dyn Service>,
    pub(crate) routes: Vec<Route>,
    /// What of the module's own changes state: POST, on the socket only.
    pub(crate) actions: Vec<Route>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) metrics: Registry,
    pub(crate) values: Values,
    pub(crate) started: Instant,
    /// The reason of the last refused reload, until one is taken.
    pub(crate) refused: std::cell::RefCell<Option<String>>,
}

impl Endpoints {
    /// The answer to a GET.
    pub(crate) fn get(&self, query: &Query<'_>, peer: Peer) -> Answer {
        match query.path {
            "/livez" => self.probe("livez", &self.alive(), query),
            "/readyz" | "/healthz" => self.probe("readyz", &self.ready(), query),
            "/metrics" => self.metrics(query.accept),
            _ if peer == Peer::Far => plain(
                403,
                "only the probes and /metrics answer here; use the pod's loopback by address or as localhost, or --admin-open\n",
            ),
            "/config" => self.config(),
            path => match self.routes.iter().find(|route| route.covers(path)) {
                Some(route) => (route.answer)(query),
                None if path == "/" => self.page(query),
                None => plain(404, "not found; / links to what is here\n"),
            },
        }
    }

    /// The answer to a POST, and what it makes the driver do.
    pub(crate) fn post(&self, query: &Query<'_>, peer: Peer) -> (Answer, Option<Change>) {
        let change = match query.path {
            "/reload" => Some(Change::Reload),
            "/drain" => Some(Change::Drain),
            _ => None,
        };
        let action = self.actions.iter().find(|action| action.covers(query.path));
        if change.is_none() && action.is_none() {
            let mut paths = vec!["/reload", "/drain"];
            paths.extend(self.actions.iter().map(|action| action.path));
            let text = format!("not found; {} take a POST\n", paths.join(", "));
            return (plain(404, &text), None);
        }
        match (peer, action) {
            (Peer::Socket, Some(action)) => ((action.answer)(query), None),
            (Peer::Socket, None) => (plain(202, "taken\n"), change),
            _ => (
                plain(403, "state is changed on --admin-socket only\n"),
                None,
            ),
        }
    }

    fn alive(&self) -> Vec<(&'static str, Result<(), String>)> {
        vec![("process", Ok(()))]
    }

    pub(crate) fn ready(&self) -> Vec<(&'static str, Result<(), String>)> {
        let phase = self.lifecycle.phase();
        let lifecycle = if phase == Phase::Ready {
            Ok(())
        } else {
            Err(phase.word().to_owned())
        };
        let mut checks = vec![("lifecycle", lifecycle)];
        checks.extend(self.service.checks());
        checks
    }

    /// As Kubernetes' own components answer: `ok`, or the checks with `[+]` and `[-]`.
    fn probe(
        &self,
        name: &str,
        checks: &[(&'static str, Result<(), String>)],
        query: &Query<'_>,
    ) -> Answer {
        let failed = checks.iter().any(|(_, result)| result.is_err());
        let status = if failed { 503 } else { 200 };
        let verbose = query
            .query
            .split('&')
            .any(|part| part.split('=').next() == Some("verbose"));
        if !failed && !verbose {
            return plain(200, "ok");
        }
        let mut text = String::new();
        for (check, result) in checks {
            match result {
                Ok(()) => text.push_str(&format!("[+]{check} ok\n")),
                Err(why) => text.push_str(&format!("[-]{check} failed: {why}\n")),
            }
        }
        let verdict = if failed { "failed" } else { "passed" };
        text.push_str(&format!("{name} check {verdict}\n"));
        plain(status, &text)
    }

    fn metrics(&self, accept: &str) -> Answer {
        let format = Format::accepted(accept);
        let body = self.metrics.encode(format).into_bytes();
        Answer {
            status: 200,
            content_type: format.content_type(),
            body,
        }
    }

    fn config(&self) -> Answer {
        let mut parameters = serde_json::Map::new();
        for (param, raws) in self.values.shown() {
            let origin = match raws.first().map(|raw| raw.origin) {
                Some(Origin::Flag) => "flag",
                Some(Origin::Variable) => "variable",
                Some(Origin::Default) | None => "default",
            };
            let texts: Vec<String> = raws.into_iter().map(|raw| raw.text).collect();
            let value = match (param.many, texts.as_slice()) {
                (true, _) => json!(texts),
                (false, [.., last]) => json!(last),
                (false, []) => json!(null),
            };
            parameters.insert(param.flag(), json!({"value": value, "origin": origin}));
        }
        let hash = format!("{:016x}", self.values.hash());
        let config = json!({
            "module": self.spec.name,
            "version": podkit_foundation::VERSION,
            "hash": hash,
            "parameters": parameters,
        });
        let body = serde_json::to_vec_pretty(&config).expect("a Value always serialises");
        Answer {
            status: 200,
            content_type: "application/json",
            body,
        }
    }

    fn page(&self, query: &Query<'_>) -> Answer {
        let failed = self
            .ready()
            .into_iter()
            .find_map(|(name, result)| Some((name, result.err()?)));
        let state = match &failed {
            None => "ready".to_owned(),
            Some(("lifecycle", phase)) => phase.clone(),
            Some((name, why)) => format!("not ready: {name}: {why}"),
        };
        let heading = Heading {
            module: self.spec.name,
            summary: self.spec.summary,
            state: &state,
            ready: failed.is_none(),
            links: self.spec.endpoints,
        };
        let mut sections = self.service.page();
        sections.push(self.process());
        let body = match query.query {
            "part=sections" => page::sections(&heading, &sections),
            _ => page::page(&heading, &sections),
        };
        Answer {
            status: 200,
            content_type: "text/html; charset=utf-8",
            body: body.into_bytes(),
        }
    }

    fn process(&self) -> Section {
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let refused = self.refused.borrow();
        Section {
            title: "Process".to_owned(),
            columns: Vec::new(),
            rows: vec![
                row("up for", format!("{} s", self.started.elapsed().as_secs())),
                row("in flight", self.lifecycle.in_flight().to_string()),
                row("configuration", format!("{:016x}", self.values.hash())),
            ],
            alert: refused
                .as_ref()
                .map(|why| format!("The last reload was refused: {why}")),
        }
    }
}

impl Route {
    fn covers(&self, path: &str) -> bool {
        path == self.path
            || (self.path.ends_with('/') && self.path != "/" && path.starts_with(self.path))
    }
}

fn plain(status: u16, text: &str) -> Answer {
    Answer {
        status,
        content_type: "text/plain; charset=utf-8",
        body: text.as_bytes().to_vec(),
    }
}
