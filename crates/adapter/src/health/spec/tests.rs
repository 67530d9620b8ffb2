use super::*;

fn usual() -> Usual {
    Usual {
        period: Duration::from_secs(5),
        timeout: Duration::from_secs(1),
        failure: 3,
        success: 1,
        window: Duration::from_secs(60),
        history: 20,
    }
}

#[test]
fn probes_are_read_and_shown() {
    let check = |text: &str, shown: &str| {
        assert_eq!(Spec::parse(text).unwrap().to_string(), shown);
    };
    check("web=http://h/health", "web=http://h:80/health");
    check(
        "web=https://[::1]?a=b;status=200",
        "web=https://[::1]:443/?a=b",
    );
    check("a=redis://unix:/run/r", "a=redis://unix:/run/r");
    check("a=exec:/bin/check --a  b", "a=exec:///bin/check --a b");
    check("a=disk:///var;free=10%", "a=disk:///var");
    check("a=dns://example.com", "a=dns://example.com");
    let spec = Spec::parse("a=tcp://:1;p99=250ms;period=1s;failure=2").unwrap();
    let rules = spec.rules(&usual()).unwrap();
    assert_eq!(rules.budget.p99, Some(Duration::from_millis(250)));
    assert_eq!((rules.failure, rules.success), (2, 1));
    let spec = Spec::parse("a=http://h;header=a: b;header=c: d").unwrap();
    assert_eq!(spec.options("header").collect::<Vec<_>>(), ["a: b", "c: d"]);
}

#[test]
fn what_is_wrong_is_named() {
    let check = |text: &str, why: &str| {
        let error = Spec::parse(text)
            .and_then(|spec| spec.rules(&usual()))
            .unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    };
    check("http://h", "there is no name");
    check("http://h/?a=b", "there is no name");
    check("a=h:80", "there is no scheme \"h\"; there are tcp, ");
    check("a=tcp:h:80", "there is no ://");
    check("a=tcp://h", "the port is missing");
    check("a=tcp://h:0", "port 0");
    check("a=redis://u:p@h", ";password-file=FILE");
    check("a=redis://h/1", "\"/1\" behind the address");
    check("a=tcp://h:1;x", "\"x\" is not KEY=VALUE");
    check("a=tcp://h:1;tiemout=1s", "did you mean timeout?");
    check("a=tcp://h:1;timeout=1", "timeout=1 is not a time");
    check("a=tcp://h:1;period=0s", "period=0s is not a time");
    check("a=tcp://h:1;failure=0", "failure=0 is not a number");
    check("a=tcp://h:1;period=1s;period=2s", "period is given twice");
    check("a=tcp://h:1;p50=1s;window=1h;period=1s", "3600 periods");
    check("a=tcp://h:1;slow=unhealthy", "mean nothing without");
    check("a=tcp://h:1;slow=dead", "expected degraded or unhealthy");
    check("a b=tcp://h:1", "the name \"a b\"");
    check("a=exec:", "the program is missing");
    check("a=disk://var", "not an absolute path");
    check("a=dns://", "missing");
}

#[test]
fn liveness_depends_on_no_other_service() {
    let check = |text: &str, right: bool| {
        assert_eq!(Spec::parse(text).is_ok(), right, "{text}");
    };
    check("a=redis://cache:6379;for=live", false);
    check("a=redis://cache:6379;for=live;liveness=force", true);
    check("a=redis://10.0.0.1:6379;for=ready,live", false);
    check("a=dns://example.com;for=live", false);
    check("a=http://127.0.0.1:80;for=live,startup", true);
    check("a=http://[::ffff:127.0.0.1]:80;for=live", true);
    check("a=http://localhost;for=live", true);
    check("a=http://unix:/run/a;for=live", true);
    check("a=exec:/bin/true;for=live", true);
    check("a=exec:/bin/true;for=alive", false);
    check("a=http://:80;liveness=force", false);
    check("a=http://:80;for=ready;liveness=force", false);
    check("a=http://:80;for=live;liveness=yes", false);
    let why = Spec::parse("a=redis://cache:6379;for=live").unwrap_err();
    assert!(why.contains("cache:6379 is another service"), "{why}");
}
