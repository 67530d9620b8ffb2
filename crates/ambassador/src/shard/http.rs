//! `--protocol http`: the HTTP proxy, with a way to each shard; the key says which one a request goes.

use std::borrow::Cow;
use std::rc::Rc;

use podkit_dataplane::http::proxy::{KeySource, Route, Router};
use podkit_dataplane::http::stage::{Pass, Reply, Stage, Stages, Verdict, View};

use super::members::Members;

/// Where requests go, as one worker sees it.
pub(super) struct ByKey {
    pub(super) key: KeySource,
    pub(super) members: Members<Rc<Route>>,
    /// For requests without the key.
    pub(super) keyless: Rc<Route>,
}

impl Router for ByKey {
    fn route(&self, request: &View<'_>) -> Option<Rc<Route>> {
        let Some(key) = key(&self.key, request).filter(|key| !key.is_empty()) else {
            self.members.refused();
            return Some(Rc::clone(&self.keyless));
        };
        self.members.follow();
        let state = self.members.state();
        Some(state.send(state.shards.ring.place(&key)))
    }
}

/// The key of a request, as it is written.
fn key<'a>(source: &KeySource, request: &View<'a>) -> Option<Cow<'a, [u8]>> {
    let written = match source {
        KeySource::Cookie(name) => request.cookie(name)?,
        KeySource::Header(name) => request.fields(name).next()?,
        KeySource::Query(name) => request.query_value(name)?,
        KeySource::Path => request.path(),
        KeySource::Ip => {
            let address = request.peer().ip()?.to_string();
            return Some(Cow::Owned(address.into_bytes()));
        }
    };
    Some(Cow::Borrowed(written))
}

/// Answers all requests: they have no key.
struct Keyless(Reply);

impl Stage for Keyless {
    fn look(&self, _: &View<'_>, _: &mut Pass<'_>) -> Verdict {
        Verdict::Answer(self.0.clone())
    }
}

/// The stages of the way for requests without the key.
pub(super) fn keyless(source: &KeySource) -> Stages {
    let what = match source {
        KeySource::Cookie(name) => format!("the cookie {name}"),
        KeySource::Header(name) => format!("the field {name}"),
        KeySource::Query(name) => format!("the query parameter {name}"),
        KeySource::Ip => "an address".to_owned(),
        KeySource::Path => "a path".to_owned(),
    };
    let line = format!("the request has not {what}, by which its shard is found\n");
    let reply = Reply {
        status: 400,
        content_type: "text/plain; charset=utf-8",
        body: Cow::Owned(line.into_bytes()),
    };
    Stages::new(vec![Rc::new(Keyless(reply))])
}
