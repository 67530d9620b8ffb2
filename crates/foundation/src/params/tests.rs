#![allow(dead_code, reason = "a declaration is tested, not every field of it")]

use super::*;
use std::path::PathBuf;
use std::time::Duration;

crate::choices! {
    /// A choice.
    enum Mode {
        /// One.
        Http = "http",
        /// Other.
        Tcp = "tcp",
    }
}

crate::params! {
    /// For the tests.
    struct Params {
        /// Addresses to listen on.
        ///
        /// More text.
        listen: Vec<Addr> { default: Some(":8443") },
        /// How many.
        max_connections: u32 { default: Some("10"), bounds: Some((1, 100)), unit: "connections" },
        /// How long.
        head_timeout: Duration { default: Some("10s"), bounds: Some((1, 60_000)) },
        /// Which.
        mode: Mode { default: Some("http") },
        /// A file.
        client_ca: Option<PathBuf> { live: true },
        /// Needed.
        upstream: Upstream {},
        /// Hidden.
        password: Option<String> { secret: true },
        /// A switch.
        self_signed: bool { default: Some("false") },
    }
}

fn read(flags: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Params, ParamError> {
    let flag = |param: &Param| -> Vec<String> {
        let mine = flags.iter().filter(|(name, _)| *name == param.flag());
        mine.map(|(_, value)| (*value).to_owned()).collect()
    };
    let variable = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    Params::from_values(&Values::gather(Params::PARAMS.iter(), &flag, &variable))
}

#[test]
fn flag_beats_variable_beats_default() {
    let upstream = ("upstream", "127.0.0.1:80");
    let params = read(&[upstream], &[("PODKIT_MAX_CONNECTIONS", "20")]).unwrap();
    assert_eq!((params.max_connections, params.listen.len()), (20, 1));
    let params = read(
        &[
            upstream,
            ("max-connections", "30"),
            ("listen", ":1,:2"),
            ("listen", "unix:/x"),
        ],
        &[("PODKIT_MAX_CONNECTIONS", "20")],
    )
    .unwrap();
    assert_eq!(params.max_connections, 30);
    assert_eq!(
        params.listen,
        [Addr::Port(1), Addr::Port(2), Addr::Unix("/x".into())]
    );
    assert_eq!(params.mode, Mode::Http);
    assert!(params.client_ca.is_none() && !params.self_signed);
}

#[test]
fn a_wrong_value_is_one_line_that_says_what_is_right() {
    let check = |flags: &[(&str, &str)], expected: &str| {
        let mut all = vec![("upstream", ":80")];
        all.extend_from_slice(flags);
        assert_eq!(read(&all, &[]).unwrap_err().to_string(), expected);
    };
    check(
        &[("max-connections", "many")],
        "--max-connections (PODKIT_MAX_CONNECTIONS): \"many\" is not right; expected a whole number \
         (connections) from 1 to 100",
    );
    check(
        &[("head-timeout", "2h")],
        "--head-timeout (PODKIT_HEAD_TIMEOUT): \"2h\" is not right (out of range); expected a duration \
         such as 250ms, 10s, 5m or 1h from 1ms to 1m",
    );
    check(
        &[("mode", "udp")],
        "--mode (PODKIT_MODE): \"udp\" is not right; expected one of http, tcp",
    );
    check(
        &[("listen", ":80,8443")],
        "--listen (PODKIT_LISTEN): \"8443\" is not right (the port is missing); expected host:port, \
         :port, [::1]:port or unix:/path",
    );
    let missing = read(&[], &[]).unwrap_err().to_string();
    assert!(
        missing.starts_with("--upstream (PODKIT_UPSTREAM): is required; expected "),
        "{missing}"
    );
}

#[test]
fn addresses_as_written() {
    let good = |text: &str, expected: Addr| {
        let addr = Addr::parse(text).unwrap();
        assert_eq!((addr.to_string().as_str(), &addr), (text, &expected));
    };
    good(":80", Addr::Port(80));
    good("1.2.3.4:80", Addr::Ip("1.2.3.4".parse().unwrap(), 80));
    good("[::1]:80", Addr::Ip("::1".parse().unwrap(), 80));
    good("app.local:80", Addr::Name("app.local".into(), 80));
    good("unix:/run/app.sock", Addr::Unix("/run/app.sock".into()));
    for bad in [
        "80",
        "::1:80",
        "a:b",
        "host:65536",
        "unix:",
        "[x]:1",
        "a b:1",
        "-:",
    ] {
        assert!(Addr::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn upstreams_as_written() {
    let same = |text: &str| assert_eq!(Upstream::parse(text).unwrap().to_string(), text);
    same("127.0.0.1:8080");
    same("h2c://unix:/run/app.sock;weight=3;priority=1");
    same("https://dns:app.local:443;server-name=app.example");
    same("srv:_http._tcp.app.local");
    same("file:/etc/upstreams");
    same("k8s:default/app:80");
    assert_eq!(
        Upstream::parse("http://127.0.0.1:80/").unwrap().to_string(),
        "127.0.0.1:80"
    );
    for bad in [
        "ftp://a:1",
        "a:1;weight=x",
        "a:1;colour=red",
        "http://user:pw@a:1",
        "a:1;weight",
    ] {
        assert!(Upstream::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn durations_sizes_and_rates() {
    assert_eq!(Duration::parse("250ms"), Ok(Duration::from_millis(250)));
    assert_eq!(Duration::parse("5m"), Ok(Duration::from_secs(300)));
    assert_eq!(Duration::parse("0"), Ok(Duration::ZERO));
    assert!(Duration::parse("5").is_err() && Duration::parse("-5s").is_err());
    assert_eq!(Size::parse("64Ki"), Ok(Size(65_536)));
    assert_eq!(Size(256 << 20).to_string(), "256Mi");
    assert!(Size::parse("64K").is_err() && Size::parse("99999999999Gi").is_err());
    assert_eq!(
        Rate::parse("100/s"),
        Ok(Rate {
            count: 100,
            per: Duration::from_secs(1)
        })
    );
    assert!(Rate::parse("100").is_err());
}

#[test]
fn secrets_are_masked_where_values_are_shown_and_in_errors() {
    let flag = |param: &Param| match param.field {
        "password" => vec!["hunter2".to_owned()],
        _ => vec![],
    };
    let values = Values::gather(Params::PARAMS.iter(), &flag, &|_| None);
    let shown = format!(
        "{:?}",
        values.shown().map(|(_, raws)| raws).collect::<Vec<_>>()
    );
    assert!(shown.contains("***") && !shown.contains("hunter2"));
}

#[test]
fn passwords_in_urls_are_masked_too() {
    let check = |text: &str, expected: &str| {
        let flag = |param: &Param| match param.field {
            "upstream" => vec![text.to_owned()],
            _ => vec![],
        };
        let values = Values::gather(UrlParams::PARAMS.iter(), &flag, &|_| None);
        let shown: Vec<String> = values
            .shown()
            .map(|(_, raws)| raws[0].text.clone())
            .collect();
        assert_eq!(shown, [expected]);
        let error = UrlParams::from_values(&values).unwrap_err().to_string();
        assert!(
            error.contains(&format!("\"{expected}\" is not right")),
            "{error}"
        );
        assert!(!error.contains("hunter"), "{error}");
    };
    check("https://me:hunter2@h:1", "https://me:***@h:1");
    check("redis://me:a:hunter 2@h:1", "redis://me:***@h:1");
    check("me:hunter2@h", "me:***@h");
    let wrong = ParamError::new("source", "\"x://a:hunter2@h\": no");
    assert!(!wrong.to_string().contains("hunter2"));
}

#[test]
fn an_unknown_variable_is_found_with_its_nearest_name() {
    let names = [
        "PODKIT_MAX_CONECTIONS",
        "PODKIT_SERVICE_HOST",
        "PODKIT_LISTEN",
        "HOME",
    ];
    let unknown = unknown_variables(Params::PARAMS.iter(), names.iter().map(|s| (*s).to_owned()));
    assert_eq!(unknown.len(), 2);
    assert_eq!(unknown[0].1.as_deref(), Some("PODKIT_MAX_CONNECTIONS"));
    assert_eq!(unknown[1].1, None);
}

#[test]
fn the_first_line_of_the_doc_is_the_help() {
    assert_eq!(Params::PARAMS[0].help(), "Addresses to listen on.");
    assert_eq!(
        Params::PARAMS[0].full_doc(),
        "Addresses to listen on.\n\nMore text."
    );
}

crate::params! {
    struct UrlParams {
        /// One.
        upstream: Upstream {},
    }
}
