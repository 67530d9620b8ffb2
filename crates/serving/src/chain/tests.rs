use podkit_foundation::yaml::Severity;

use super::file::parse;
use super::*;

const GOOD: &str = "\
listeners:
- listen: [':8080', unix:/run/x]
  idle-timeout: 5s
- listen: ':8443'
  tls: {self-signed: true}
  routes:
  - stages: web
stages:
  few:
    limit:
      rule:
      - {name: few, key: ip, rate: 10/s, method: [GET, POST]}
      - name=login key=global rate=1/s path=/login
  web:
    balance: {upstream: 'a:80;weight=2,b:80', ready: off, eject-after: 3}
  api:
    balance: {upstream: ['c:80'], policy: hash, hash-key: ip}
routes:
- host: [shop.example.com, '*.shop.example.com']
  path: /api/*
  stages: [few, api]
- stages: [web]
";

fn lines(text: &str) -> Vec<String> {
    let (_, findings) = parse("f", text, 100);
    findings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_file_says_what_it_says() {
    let (file, findings) = parse("f", GOOD, 100);
    assert!(findings.is_empty(), "{findings}");
    let file = file.unwrap();
    assert_eq!(file.listeners.len(), 2);
    assert_eq!(file.listeners[0].params.listen.len(), 2);
    assert_eq!(file.listeners[0].params.limits.max_connections, 100);
    assert!(file.listeners[1].params.tls.is_some());
    let stages: Vec<_> = file.listeners.iter().map(|one| one.routes.len()).collect();
    assert_eq!(stages, [2, 1]);
    let rule = &file.stages["few"].said[0].1;
    assert_eq!(rule[0], "name=few key=ip rate=10/s method=GET,POST");
    assert!(is_chain(GOOD));
    assert!(!is_chain("kind: Pod\nstages: {}"));
}

#[test]
fn one_listener_may_be_at_the_top() {
    let text = "listen: ':80'\nhttp2: false\nstages: {web: {balance: {upstream: 'a:80'}}}\nroutes: [{stages: [web]}]\n";
    assert_eq!(lines(text), Vec::<String>::new());
}

#[test]
fn stages_may_stand_in_their_routes() {
    let text = "\
listeners:
- listen: ':80'
- listen: ':81'
  routes:
  - stages: {balance: {upstream: 'b:80'}}
routes:
- stages:
  - limit: {rule: {name: all, key: ip, rate: 10/s}}
  - limit: {rule: {name: more, key: global, rate: 99/s}}
  - balance: {upstream: 'a:80'}
- host: ['*.example.com', example.com]
  path: /api/*
  stages:
  - balance:
      upstream: ['c:80', 'd:80']
      policy: least
";
    let (file, findings) = parse("f", text, 100);
    assert!(findings.is_empty(), "{findings}");
    let file = file.unwrap();
    let names: Vec<&str> = file.stages.keys().map(String::as_str).collect();
    let expected = [
        "*.example.com/api/* balance",
        "/* balance",
        "/* limit",
        "/* limit 2",
        ":81 /* balance",
    ];
    assert_eq!(names, expected);
    let first = &file.listeners[0].routes[0];
    assert_eq!(first.stages, ["/* limit", "/* limit 2", "/* balance"]);
    // The same stages wherever the route stands.
    let (head, routes) = text.split_once("routes:\n- stages:").unwrap();
    let (first, second) = routes.split_once("- host").unwrap();
    let moved = format!("{head}routes:\n- host{second}- stages:{first}");
    let (moved, findings) = parse("f", &moved, 100);
    assert!(findings.is_empty(), "{findings}");
    assert!(moved.unwrap().stages.keys().eq(file.stages.keys()));
    assert!(is_chain("routes: []"));
    let check = |from: &str, to: &str, expected: &str| {
        assert!(text.contains(from), "{from}");
        let lines = lines(&text.replacen(from, to, 1));
        assert!(
            lines.iter().any(|line| line.contains(expected)),
            "{to}: {lines:#?}"
        );
    };
    check(
        "policy: least",
        "polcy: least",
        "routes[1].stages[0].balance.polcy: unknown key; did you mean policy?",
    );
    check(
        "- balance: {upstream: 'a:80'}",
        "- blance: {}",
        "did you mean balance?",
    );
    check(
        "- balance: {upstream: 'a:80'}",
        "- 7",
        "expected a stage or the name of one, found",
    );
    check(
        "  - balance: {upstream: 'a:80'}\n",
        "",
        "the route ends with /* limit 2, which forwards nothing",
    );
    check(
        "- balance: {upstream: 'a:80'}",
        "- a",
        "there is no stage \"a\"; stages names them",
    );
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let check = |from: &str, to: &str, expected: &str| {
        assert!(GOOD.contains(from), "{from}");
        let lines = lines(&GOOD.replacen(from, to, 1));
        assert!(
            lines.iter().any(|line| line.contains(expected)),
            "{to}: {lines:#?}"
        );
    };
    check(
        "idle-timeout",
        "idle-timout",
        "f:3:3: listeners[0].idle-timout: unknown key; did you mean idle-timeout?",
    );
    check(
        "idle-timeout: 5s",
        "idle-timeout: 5",
        "f:3:17: listeners[0].idle-timeout: \"5\" is not right (the unit is missing)",
    );
    check(
        "idle-timeout: 5s",
        "max-connections: 5",
        "listeners[0].max-connections: unknown key",
    );
    check(
        "eject-after: 3",
        "eject-aftr: 3",
        "stages.web.balance.eject-aftr: unknown key; did you mean eject-after?",
    );
    check(
        "eject-after: 3",
        "listen: ':1'",
        "stages.web.balance.listen: unknown key",
    );
    check(
        "eject-after: 3",
        "eject-after: [3, 4]",
        "takes one value, found a list",
    );
    check(
        "hash-key: ip",
        "hash: maglev",
        "stages.api.balance.hash-key: --policy hash needs it",
    );
    check(
        "{self-signed: true}",
        "{}",
        "listeners[1].tls.cert: no certificate is given",
    );
    check("rate: 10/s", "rte: 10/s", "did you mean rate?");
    check(
        "[few, api]",
        "[few]",
        "the route ends with few, which forwards nothing",
    );
    check(
        "[few, api]",
        "[api, few]",
        "ends the route; nothing can follow",
    );
    check(
        "[few, api]",
        "[few, apo]",
        "there is no stage \"apo\"; did you mean api?",
    );
    check("/api/*", "/api*", "is not a path such as");
    check(
        "- stages: [web]",
        "- host: '*.shop.example.com'\n  path: /api/*\n  stages: [web]",
        "route 0 has the same host and path already",
    );
    check("':8443'", "':8080'", ":8080 is another listener's too");
    check(
        "  web:\n    balance",
        "  web:\n    balanc",
        "did you mean balance?",
    );
    check(
        "listeners:",
        "listen: ':1'\nlisteners:",
        "can't go with listeners",
    );
    let idle = GOOD.replace("[few, api]", "[api]");
    let (file, findings) = parse("f", &idle, 100);
    assert!(file.is_some());
    assert_eq!(findings.count(Severity::Warning), 1);
    assert!(
        findings
            .to_string()
            .contains("stages.few: no route goes there"),
        "{findings}"
    );
}

#[test]
fn the_schema_has_every_key() {
    let schema = schema::schema();
    for kind in kinds::KINDS {
        let properties = &schema["$defs"]["stage"]["properties"][kind.name]["properties"];
        for param in kind.keys() {
            assert!(
                properties[param.flag()].is_object(),
                "{} {}",
                kind.name,
                param.flag()
            );
        }
    }
    assert!(schema["properties"]["tls"]["properties"]["cert-dir"].is_object());
    assert!(schema["properties"]["max-connections"].is_null());
}
