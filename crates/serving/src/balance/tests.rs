use podkit_dataplane::upstream::{Discovery, Membership, Settings};
use podkit_foundation::params::{Param, ParamType as _, Upstream, Values};
use podkit_foundation::telemetry::metrics::Registry;
use tokio::time::Instant;

use super::*;

fn line(args: &[(&str, &str)]) -> String {
    let mut given = vec![("upstream", "a:1")];
    given.extend(args);
    let flags = |param: &Param| -> Vec<String> {
        let name = param.flag();
        let found = given.iter().filter(|(flag, _)| *flag == name);
        found.map(|(_, value)| (*value).to_owned()).collect()
    };
    let values = Values::gather(SPEC.params.iter().copied().flatten(), &flags, &|_| None);
    match Params::checked(&values) {
        Ok(_) => "fine".to_owned(),
        Err(failure) => {
            assert_eq!(failure.exit_code(), 2);
            failure.to_string()
        }
    }
}

#[test]
fn what_does_not_go_together_is_one_line() {
    let check = |args: &[(&str, &str)], expected: &str| {
        let line = line(args);
        assert!(line.contains(expected), "{args:?}: {line}");
    };
    check(&[], "fine");
    check(&[("policy", "hash"), ("hash-key", "cookie:id")], "fine");
    check(
        &[("policy", "hash")],
        "--hash-key (PODKIT_HASH_KEY): --policy hash needs it",
    );
    check(
        &[("hash", "ketama")],
        "--hash (PODKIT_HASH): needs --policy hash",
    );
    check(&[("load-bound", "1.25")], "needs --policy hash");
    check(&[("load-bound", "1")], "more than 1");
    check(&[("affinity-secret-file", "/x")], "needs --affinity");
    check(
        &[
            ("affinity", "cookie"),
            ("policy", "hash"),
            ("hash-key", "ip"),
        ],
        "can't go with --policy hash",
    );
    check(&[("trace-sampled", "5%")], "needs --traceparent make");
    check(&[("retry-budget", "5")], "the % is missing");
    check(&[("retries", "8")], "from 0 to 7");
    check(&[("access-log", "here")], "stderr or an absolute path");
}

#[test]
fn one_is_drained_by_name() {
    let membership = Membership::new(Settings::default());
    let upstreams = ["127.0.0.1:1", "unix:/run/a b"].map(|text| Upstream::parse(text).unwrap());
    Discovery::new(
        "upstream",
        "balance",
        &upstreams,
        9,
        membership.clone(),
        &Registry::default(),
    )
    .unwrap();
    let check = |path: &str, status: u16, states: [&str; 2]| {
        let answer = page::drain(&membership, path, Instant::now());
        assert_eq!(answer.status, status, "{path}");
        let shown = membership.shown(Instant::now());
        assert_eq!([shown[0].state, shown[1].state], states, "{path}");
    };
    check("127.0.0.1:1/drain", 200, ["draining", "ready"]);
    check("127.0.0.1:1/drain", 200, ["draining", "ready"]);
    check("unix:%2frun/a%20b/drain", 200, ["draining", "draining"]);
    assert!(membership.usable(Instant::now()).is_err());
    check("127.0.0.1:1/undrain", 200, ["ready", "draining"]);
    check("127.0.0.1:2/drain", 404, ["ready", "draining"]);
    check("127.0.0.1:1/stop", 404, ["ready", "draining"]);
    check("%zz/drain", 404, ["ready", "draining"]);
    check("", 404, ["ready", "draining"]);
}
