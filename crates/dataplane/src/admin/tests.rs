#![allow(dead_code, reason = "a declaration is tested, not every field of it")]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use podkit_foundation::error::Failure;
use podkit_foundation::lifecycle::{Lifecycle, Phase};
use podkit_foundation::params::{Param, ParamSet as _, Values};
use podkit_foundation::surface::{Group, ModuleSpec};
use podkit_foundation::telemetry::metrics::Registry;

use super::endpoints::Peer;
use super::{Change, Endpoints};
use crate::module::{Answer, Query, Route, Section, Service};

podkit_foundation::params! {
    /// For the tests.
    struct Params {
        /// A word.
        word: String { default: Some("w") },
        /// A secret.
        password: Option<String> { secret: true },
        /// Many.
        many: Vec<String> {},
    }
}

const SPEC: ModuleSpec = ModuleSpec {
    name: "sample",
    group: Group::TryingOut,
    summary: "For <tests>.",
    about: "",
    admin_port: 9699,
    data_path: false,
    config: None,
    params: &[Params::PARAMS],
    ports: &[],
    endpoints: &[],
    files: &[],
    needs: &[],
    metrics: &[],
};

struct Sample;

impl Service for Sample {
    fn start(self: Rc<Self>) -> Result<(), Failure> {
        Ok(())
    }

    fn reload(&self) -> Result<(), String> {
        Ok(())
    }

    fn page(&self) -> Vec<Section> {
        vec![Section {
            title: "State".to_owned(),
            columns: vec![],
            rows: vec![vec!["<b>".to_owned(), "a & \"b\"".to_owned()]],
            alert: Some("refused: <script>".to_owned()),
        }]
    }

    fn actions(&self) -> Vec<Route> {
        vec![Route {
            path: "/things/",
            answer: Rc::new(|query| Answer {
                status: 200,
                content_type: "text/plain",
                body: query.path.as_bytes().to_vec(),
            }),
        }]
    }

    fn routes(&self) -> Vec<Route> {
        let answer = |text: &'static str| -> Rc<dyn Fn(&Query<'_>) -> Answer> {
            Rc::new(move |query| {
                let body = format!("{text} {} {}", query.path, query.query).into_bytes();
                Answer {
                    status: 200,
                    content_type: "text/plain",
                    body,
                }
            })
        };
        vec![
            Route {
                path: "/topz",
                answer: answer("one"),
            },
            Route {
                path: "/api/",
                answer: answer("below"),
            },
        ]
    }
}

fn endpoints() -> Endpoints {
    let flags = |param: &Param| match param.field {
        "password" => vec!["hunter2".to_owned()],
        "many" => vec!["a,b".to_owned()],
        _ => vec![],
    };
    let service = Rc::new(Sample);
    Endpoints {
        spec: &SPEC,
        routes: service.routes(),
        actions: service.actions(),
        service,
        lifecycle: Lifecycle::new(),
        metrics: Registry::default(),
        values: Values::gather(SPEC.all_params().iter(), &flags, &|_| None),
        started: Instant::now(),
        refused: RefCell::new(None),
    }
}

fn query(path: &str) -> Query<'_> {
    Query {
        path,
        query: "",
        accept: "",
    }
}

fn get(endpoints: &Endpoints, target: &str, peer: Peer) -> (u16, String) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let answer = endpoints.get(
        &Query {
            path,
            query,
            accept: "",
        },
        peer,
    );
    (answer.status, String::from_utf8(answer.body).unwrap())
}

#[test]
fn readiness_follows_the_lifecycle_and_liveness_does_not() {
    let endpoints = endpoints();
    let check = |ready: u16, text: &str| {
        assert_eq!(get(&endpoints, "/livez", Peer::Far), (200, "ok".to_owned()));
        let (status, body) = get(&endpoints, "/readyz", Peer::Far);
        assert_eq!(status, ready);
        assert!(body.contains(text), "{body}");
        assert_eq!(get(&endpoints, "/healthz", Peer::Far), (status, body));
    };
    check(503, "[-]lifecycle failed: starting");
    endpoints.lifecycle.advance(Phase::Ready);
    check(200, "ok");
    let verbose = get(&endpoints, "/readyz?verbose", Peer::Far).1;
    assert_eq!(verbose, "[+]lifecycle ok\nreadyz check passed\n");
    endpoints.lifecycle.advance(Phase::LameDuck);
    check(503, "[-]lifecycle failed: lame duck");
}

#[test]
fn the_pods_address_gets_probes_and_metrics_only() {
    let endpoints = endpoints();
    for path in ["/livez", "/metrics"] {
        assert_eq!(get(&endpoints, path, Peer::Far).0, 200, "{path}");
    }
    for path in ["/", "/config", "/topz", "/api/processes", "/nothing"] {
        assert_eq!(get(&endpoints, path, Peer::Far).0, 403, "{path}");
    }
    assert_eq!(
        get(&endpoints, "/topz?at=1", Peer::Near),
        (200, "one /topz at=1".to_owned())
    );
    assert_eq!(
        get(&endpoints, "/api/x/y", Peer::Near),
        (200, "below /api/x/y ".to_owned())
    );
    assert_eq!(get(&endpoints, "/topzz", Peer::Near).0, 404);
}

#[test]
fn state_changes_on_the_socket_only() {
    let endpoints = endpoints();
    for peer in [Peer::Near, Peer::Far] {
        let (answer, change) = endpoints.post(&query("/drain"), peer);
        assert_eq!((answer.status, change), (403, None));
    }
    assert_eq!(
        endpoints.post(&query("/drain"), Peer::Socket).1,
        Some(Change::Drain)
    );
    assert_eq!(
        endpoints.post(&query("/reload"), Peer::Socket).1,
        Some(Change::Reload)
    );
    assert_eq!(endpoints.post(&query("/livez"), Peer::Socket).0.status, 404);
    // The module's own: nothing for the driver to do.
    for (peer, status) in [(Peer::Near, 403), (Peer::Far, 403), (Peer::Socket, 200)] {
        let (answer, change) = endpoints.post(&query("/things/one/drain"), peer);
        assert_eq!((answer.status, change), (status, None));
    }
    assert_eq!(get(&endpoints, "/things/one/drain", Peer::Socket).0, 404);
}

#[test]
fn config_shows_origins_and_masks_secrets() {
    let (status, body) = get(&endpoints(), "/config", Peer::Near);
    let config: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 200);
    assert_eq!(
        config["parameters"]["word"],
        serde_json::json!({"value": "w", "origin": "default"})
    );
    assert_eq!(
        config["parameters"]["password"],
        serde_json::json!({"value": "***", "origin": "flag"})
    );
    assert_eq!(
        config["parameters"]["many"]["value"],
        serde_json::json!(["a", "b"])
    );
    assert!(!body.contains("hunter2"));
}

#[test]
fn the_page_escapes_what_it_shows_and_its_live_part_is_a_part_of_it() {
    let endpoints = endpoints();
    endpoints.refused.replace(Some("bad <list>".to_owned()));
    let page = get(&endpoints, "/", Peer::Near).1;
    for shown in [
        "For &lt;tests&gt;.",
        "a &amp; &quot;b&quot;",
        "refused: &lt;script&gt;",
        "bad &lt;list&gt;",
    ] {
        assert!(page.contains(shown), "{shown} is not in\n{page}");
    }
    let part = get(&endpoints, "/?part=sections", Peer::Near).1;
    assert!(!part.contains("<html") && part.contains("a &amp; &quot;b&quot;"));
}

#[test]
fn a_foreign_name_that_points_at_the_loopback_is_not_near() {
    let check =
        |host: Option<&str>, near: bool| assert_eq!(super::host_is_local(host), near, "{host:?}");
    for host in [
        "127.0.0.1:9604",
        "127.0.0.1",
        "localhost:9604",
        "app.localhost",
        "[::1]:9604",
        "10.88.0.3",
    ] {
        check(Some(host), true);
    }
    check(None, true);
    for host in [
        "evil.example",
        "localhost.evil.example:9604",
        "127.0.0.1.evil.example",
        "[::1",
        "",
    ] {
        check(Some(host), false);
    }
}
