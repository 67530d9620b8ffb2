//! `podkit shard --protocol http` in front of real nginx.

use std::net::SocketAddr;

use podkit_testkit::certs::replace;
use podkit_testkit::http::{self, dial, exchange, get_with};
use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::{Module, podkit};
use podkit_testkit::{Need, Turn, able, until};

use crate::balance::Upstream;

fn of(listen: SocketAddr, tenant: u32) -> String {
    let answer = get_with(listen, "/", &format!("X-Tenant: t{tenant}\r\n")).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

#[test]
fn each_request_goes_to_the_shard_of_its_key() {
    if !able(&[Need::Program("nginx")]) {
        return;
    }
    let _turn = Turn::shared();
    let mut upstreams: Vec<Upstream> = ["a", "b", "c"].map(Upstream::new).into();
    let dir = tempfile::tempdir().unwrap();
    let (file, keys) = (dir.path().join("shards"), dir.path().join("keys"));
    let list = |upstreams: &[Upstream]| {
        let names = ["a", "b", "c"].iter().zip(upstreams);
        names
            .map(|(name, upstream)| format!("{name}={}\n", upstream.addr))
            .collect::<String>()
    };
    replace(&file, &list(&upstreams));
    let listen = free_addr();
    let args = [
        "--protocol=http",
        "--key=header:x-tenant",
        &format!("--listen={listen}"),
        &format!("--shards-file={}", file.display()),
    ];
    let module = Module::start("shard", &args, &[]);
    let before: Vec<String> = (0..60).map(|tenant| of(listen, tenant)).collect();
    // As `shard plan` has it.
    let all: String = (0..60).map(|tenant| format!("t{tenant}\n")).collect();
    std::fs::write(&keys, all).unwrap();
    let [file_arg, keys] = [&file, &keys].map(|path| path.display().to_string());
    let plan = podkit(&[
        "shard", "plan", &file_arg, &file_arg, "--keys", &keys, "-o", "json",
    ]);
    let plan: serde_json::Value = serde_json::from_str(&plan.out).unwrap();
    for (at, name) in ["a", "b", "c"].iter().enumerate() {
        let count = before.iter().filter(|shard| shard == name).count();
        assert_eq!(plan["shards"][at]["before"], count, "{name}: {plan}");
        assert!(count > 5, "{before:?}");
    }
    let shard = |name: &str| format!("podkit_shard_commands_total{{shard=\"{name}\"}}");
    let sent: f64 = ["a", "b", "c"]
        .iter()
        .filter_map(|name| module.metric(&shard(name)))
        .sum();
    assert!((sent - 60.0).abs() < 0.5, "{sent}");
    // Without the key, or with an empty one.
    for field in ["", "X-Tenant:\r\n"] {
        let answer = get_with(listen, "/", field).unwrap();
        assert_eq!(answer.status, 400);
        let line = "the request has not the field x-tenant, by which its shard is found\n";
        assert_eq!(answer.text(), line);
    }
    assert_eq!(module.metric("podkit_shard_refused_total"), Some(2.0));
    // A shard goes: its keys move, no other does, and a connection that is open stays.
    let mut stream = dial(listen).unwrap();
    let request =
        |tenant: usize| format!("GET / HTTP/1.1\r\nHost: h\r\nX-Tenant: t{tenant}\r\n\r\n");
    let mut ask = |tenant: usize| {
        let answer = exchange(&mut stream, request(tenant).as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text()
    };
    let gone = before.iter().position(|shard| shard == "c").unwrap();
    assert_eq!(ask(gone), "c");
    replace(&file, &list(&upstreams[..2]));
    until("the change is in force", || {
        (ask(gone) != "c").then_some(())
    });
    for (tenant, shard) in before.iter().enumerate() {
        let now = ask(tenant);
        assert!(
            now == *shard || shard == "c" && now != "c",
            "t{tenant} {shard} {now}"
        );
    }
    // One that is away is the trouble of its keys only.
    upstreams.remove(0);
    let statuses: Vec<u16> = (0..60)
        .map(|tenant| {
            let field = format!("X-Tenant: t{tenant}\r\n");
            http::get_with(listen, "/", &field).unwrap().status
        })
        .collect();
    let well = statuses.iter().filter(|status| **status == 200).count();
    assert!(well > 10 && well < 50, "{statuses:?}");
    assert!(
        statuses
            .iter()
            .all(|status| matches!(status, 200 | 502 | 503)),
        "{statuses:?}"
    );
}

#[test]
fn keys_are_found_where_they_are_said_to_be() {
    if !able(&[Need::Program("nginx")]) {
        return;
    }
    let _turn = Turn::shared();
    let upstreams = ["a", "b"].map(Upstream::new);
    let start = |key: &str| {
        let listen = free_addr();
        let args = [
            "--protocol=http",
            &format!("--key={key}"),
            &format!("--listen={listen}"),
            &format!("--shard=a={}", upstreams[0].addr),
            &format!("--shard=b={}", upstreams[1].addr),
        ];
        (Module::start("shard", &args, &[]), listen)
    };
    // The same keys, wherever they stand, are on the same shard.
    let places = |listen, path: &dyn Fn(u32) -> String, fields: &dyn Fn(u32) -> String| {
        let ask = |at| {
            let answer = get_with(listen, &path(at), &fields(at)).unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            answer.text()
        };
        (0..20).map(ask).collect::<Vec<String>>()
    };
    let (root, none) = (|_| "/".to_owned(), |_| String::new());
    let (_cookie, listen) = start("cookie:user");
    let by_cookie = places(listen, &root, &|at| format!("Cookie: x=1; user=/u{at}\r\n"));
    let (_query, listen) = start("query:user");
    let by_query = places(listen, &|at| format!("/any?y=2&user=/u{at}"), &none);
    let (_path, listen) = start("path");
    let by_path = places(listen, &|at| format!("/u{at}?z=3"), &none);
    assert_eq!(by_cookie, by_query);
    assert_eq!(by_cookie, by_path);
    assert!(by_path.contains(&"a".to_owned()) && by_path.contains(&"b".to_owned()));
}

#[test]
fn what_can_not_be_is_one_line() {
    let refused = |more: &[&str], expected: &str| {
        let args = [&["shard", "--protocol=http", "--shard=a=:1"], more].concat();
        let finished = podkit(&args);
        assert_eq!(finished.code, Some(2), "{}", finished.err);
        assert!(finished.err.contains(expected), "{}", finished.err);
    };
    refused(&[], "--key (PODKIT_KEY): is required with --protocol http");
    refused(
        &["--key=path", "--max-command-size=1Mi"],
        "means nothing with --protocol http",
    );
}
