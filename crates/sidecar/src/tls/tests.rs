use podkit_foundation::params::{Param, ParamType as _, Values};

use super::redirect::location;
use super::{Hsts, METRICS, Params, SPEC};

fn values(flags: &[(&str, &str)]) -> Values {
    let given = |param: &Param| -> Vec<String> {
        let mine = flags.iter().filter(|(name, _)| *name == param.flag());
        mine.map(|(_, value)| (*value).to_owned()).collect()
    };
    Values::gather(SPEC.params.iter().copied().flatten(), &given, &|_| None)
}

#[track_caller]
fn refused(flags: &[(&str, &str)], words: &str) {
    let failure = Params::checked(&values(flags)).unwrap_err();
    assert_eq!(failure.exit_code(), 2, "{failure}");
    let line = failure.to_string();
    assert!(line.contains(words) && line.lines().count() == 1, "{line}");
}

#[test]
fn parameters_are_checked_against_each_other() {
    let app = ("upstream", "127.0.0.1:8080");
    Params::checked(&values(&[app])).unwrap();
    Params::checked(&values(&[("upstream", "unix:/run/app.sock")])).unwrap();
    refused(
        &[],
        "--upstream (PODKIT_UPSTREAM): is required; expected host:port",
    );
    refused(
        &[("upstream", "a:1,b:2")],
        "2 are given, and tls stands in front of one application",
    );
    Params::checked(&values(&[("upstream", "https://a:1")])).unwrap();
    refused(&[("upstream", "dns:a:1")], "dns:");
    refused(
        &[("upstream", "a:1;weight=2")],
        "weight and priority mean nothing",
    );
    refused(
        &[app, ("mode", "tcp"), ("hsts", "365d")],
        "--hsts (PODKIT_HSTS): needs --mode http",
    );
    refused(
        &[app, ("mode", "tcp"), ("idle-timeout", "1m")],
        "--idle-timeout (PODKIT_IDLE_TIMEOUT): needs --mode http",
    );
    refused(
        &[app, ("mode", "tcp"), ("trust-forwarded", "true")],
        "needs --mode http",
    );
    Params::checked(&values(&[
        app,
        ("mode", "tcp"),
        ("head-timeout", "1s"),
        ("max-connections", "5"),
    ]))
    .unwrap();
    let both = [
        app,
        ("mode", "tcp"),
        ("idle-timeout", "1m"),
        ("redirect-from", ":80"),
    ];
    Params::checked(&values(&both)).unwrap();
    refused(&[app, ("redirect-port", "443")], "needs --redirect-from");
    refused(
        &[app, ("listen", "unix:/x"), ("redirect-from", ":80")],
        "needs --redirect-port",
    );
}

#[test]
fn redirects_keep_host_path_and_query() {
    let check = |host, target, port, expected: &str| {
        assert_eq!(
            location(Some(host), target, port).as_deref(),
            Some(expected)
        );
    };
    check(
        "app.example",
        "/a/b?c=d%20e",
        443,
        "https://app.example/a/b?c=d%20e",
    );
    check("app.example:8080", "/", 8443, "https://app.example:8443/");
    check("[2001:db8::1]:8080", "/x", 443, "https://[2001:db8::1]/x");
    check("[::1]", "/x", 8443, "https://[::1]:8443/x");
    check("127.0.0.1:80", "*", 443, "https://127.0.0.1/");
    for bad in ["", ":80", "a b", "a/b", "evil@app", "[::1", "a\"b"] {
        assert_eq!(location(Some(bad), "/", 443), None, "{bad}");
    }
    assert_eq!(location(None, "/", 443), None);
}

#[test]
fn hsts_is_written_as_rfc_6797_says() {
    let check =
        |text: &str, expected: &str| assert_eq!(Hsts::parse(text).unwrap().value(), expected);
    check("365d", "max-age=31536000");
    check(
        "8760h;include-subdomains",
        "max-age=31536000; includeSubDomains",
    );
    check(
        "730d;include-subdomains;preload",
        "max-age=63072000; includeSubDomains; preload",
    );
    check("0s", "max-age=0");
    for bad in [
        "",
        "365",
        "d",
        "1y",
        "365d;x",
        "365d;preload",
        "1d;include-subdomains;preload",
        "99999999999999999d",
    ] {
        assert!(Hsts::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_surface_names_each_thing_once() {
    let mut flags: Vec<String> = SPEC
        .params
        .iter()
        .flat_map(|set| set.iter())
        .map(Param::flag)
        .collect();
    let all = flags.len();
    flags.sort();
    flags.dedup();
    assert_eq!(flags.len(), all);
    let mut names: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), METRICS.len());
    for port in SPEC.ports {
        assert!(flags.contains(&port.param.to_owned()), "{}", port.param);
    }
    for file in SPEC.files {
        assert!(flags.contains(&file.name.to_owned()), "{}", file.name);
    }
}
