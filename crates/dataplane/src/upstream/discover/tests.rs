use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use podkit_foundation::params::ParamType as _;
use tokio::task::LocalSet;

use super::super::membership::Settings;
use super::*;

fn listed(text: &str) -> Result<Vec<String>, String> {
    let listed = parse(text, "balance", 3)?;
    Ok(listed.iter().map(ToString::to_string).collect())
}

#[test]
fn a_file_has_one_upstream_a_line() {
    let text = "# ours\n\n a:80;weight=2 # first\nunix:/run/b;priority=1\r\ndns:c:1\n";
    assert_eq!(
        listed(text).unwrap(),
        ["a:80;weight=2", "unix:/run/b;priority=1", "dns:c:1"]
    );
    let check = |text, expected: &str| {
        let why = listed(text).unwrap_err();
        assert!(why.contains(expected), "{why}");
    };
    check("", "names no upstream");
    check("# a:80\n", "names no upstream");
    check("a:80\nb\n", "line 2: \"b\": the port is missing");
    check(
        "file:/x",
        "line 1: \"file:/x\": a file can't name another one",
    );
    check("k8s:a/b:1", "k8s: is not there yet");
    check("a:1\na:1", "line 2: \"a:1\": is there twice");
    check("a:0", "port 0 can't be dialled");
    check(
        "a:1\na:2\na:3\na:4",
        "names 4 upstreams; --max-upstreams is 3",
    );
}

fn discovery(upstreams: &[&str]) -> Result<(Discovery, Membership), String> {
    let membership = Membership::new(Settings::default());
    let upstreams: Vec<Upstream> = upstreams
        .iter()
        .map(|text| Upstream::parse(text).unwrap())
        .collect();
    Discovery::new(
        "upstream",
        "balance",
        &upstreams,
        10,
        membership.clone(),
        &Registry::default(),
    )
    .map(|discovery| (discovery, membership))
    .map_err(|failure| failure.to_string())
}

/// Carries the watch on until `seen`: all that it does happens when it is polled.
async fn driven(watch: &mut Pin<Box<impl Future<Output = ()>>>, seen: impl Fn() -> bool) {
    let seen = poll_fn(
        |cx| match seen() || watch.as_mut().poll(cx).is_ready() || seen() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        },
    );
    let in_time = tokio::time::timeout(Duration::from_secs(30), seen).await;
    in_time.expect("it is seen in time");
}

fn names(membership: &Membership) -> Vec<String> {
    let view = membership.view();
    let show = |one: &Arc<super::super::Endpoint>| format!("{}*{}", one.name(), one.weight());
    view.endpoints.iter().map(show).collect()
}

#[test]
fn what_is_not_there_is_one_line() {
    let check = |text: &str, expected: &str| {
        let why = discovery(&[text]).unwrap_err();
        assert!(why.starts_with("--upstream (PODKIT_UPSTREAM): "), "{why}");
        assert!(why.contains(expected), "{why}");
    };
    check(
        "k8s:shop/web:80",
        "k8s: is not there yet; expected host:port",
    );
    check("file:here", "file: takes an absolute path");
    check("file:/x;weight=2", "options and schemes go into the file");
    check("file:/nonexistent/x", "No such file");
    assert!(discovery(&[]).unwrap_err().contains("is required"));
}

#[test]
fn a_bad_edit_is_refused_and_a_good_one_keeps_who_stays() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(LocalSet::new().run_until(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("upstreams");
        std::fs::write(&path, "127.0.0.1:1\n127.0.0.1:2;weight=2\n").unwrap();
        let source = format!("file:{}", path.display());
        let (discovery, membership) = discovery(&[&source, "127.0.0.1:9"]).unwrap();
        let before = ["127.0.0.1:1*1", "127.0.0.1:2*2", "127.0.0.1:9*1"];
        assert_eq!(names(&membership), before);
        let ids = |membership: &Membership| -> Vec<u32> {
            membership
                .view()
                .endpoints
                .iter()
                .map(|one| one.id())
                .collect()
        };
        let old = ids(&membership);
        let mut watch = Box::pin(discovery.clone().watch());

        std::fs::write(&path, "127.0.0.1:1\nnonsense\n").unwrap();
        assert!(discovery.reload().unwrap_err().contains("line 2"));
        driven(&mut watch, || !discovery.problems().is_empty()).await;
        assert_eq!(names(&membership), before);

        // By rename, as editors do.
        let fresh = dir.path().join("fresh");
        std::fs::write(&fresh, "127.0.0.1:3\n127.0.0.1:2;weight=5\n").unwrap();
        std::fs::rename(&fresh, &path).unwrap();
        let after = ["127.0.0.1:3*1", "127.0.0.1:2*5", "127.0.0.1:9*1"];
        driven(&mut watch, || names(&membership) == after).await;
        assert_eq!(ids(&membership)[1..], old[1..]);
        assert!(discovery.problems().is_empty());
    }));
}

#[test]
fn a_name_is_every_address_it_has() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(LocalSet::new().run_until(async {
        // From /etc/hosts.
        let (discovery, membership) = discovery(&["dns:localhost:81;weight=3"]).unwrap();
        assert!(names(&membership).is_empty());
        let mut watch = Box::pin(discovery.watch());
        driven(&mut watch, || !names(&membership).is_empty()).await;
        assert!(names(&membership).contains(&"127.0.0.1:81*3".to_owned()));
    }));
}

#[test]
fn records_are_taken_as_they_say_and_a_name_server_that_is_away_changes_nothing() {
    let sources = [
        "srv:_http._tcp.shop;weight=9",
        "dns:app:80;weight=3;priority=1",
    ];
    let (discovery, membership) = discovery(&sources).unwrap();
    let shares = || -> Vec<String> {
        let view = membership.view();
        let show = |one: &Arc<super::super::Endpoint>| {
            format!("{} {} {}", one.name(), one.weight(), one.priority())
        };
        view.endpoints.iter().map(show).collect()
    };
    let resolved = |ip: [u8; 4], port, share| Resolved {
        addr: Addr::Ip(ip.into(), port),
        share,
        name: "n".to_owned(),
    };
    let soon = Instant::now() + Duration::from_secs(9);
    let answer = |members| {
        Ok(Answer {
            members,
            until: soon,
        })
    };
    // A weight of 0 is a small share, not none (RFC 2782); a port that can't be dialled is left out.
    let records = vec![
        resolved([10, 0, 0, 1], 8080, Some((0, 2))),
        resolved([10, 0, 0, 2], 8081, Some((5, 0))),
        resolved([10, 0, 0, 3], 0, Some((5, 0))),
    ];
    let srv = "srv:_http._tcp.shop".to_owned();
    assert_eq!(discovery.take_answer(srv.clone(), answer(records)), soon);
    let addresses = vec![resolved([10, 0, 0, 9], 80, None)];
    discovery.take_answer("dns:app:80".to_owned(), answer(addresses));
    discovery.tell();
    let expected = ["10.0.0.1:8080 1 2", "10.0.0.2:8081 5 0", "10.0.0.9:80 3 1"];
    assert_eq!(shares(), expected);
    let again = discovery.take_answer(srv, Err("no answer in time".to_owned()));
    assert!(again > Instant::now());
    discovery.tell();
    assert_eq!(shares(), expected);
    assert_eq!(
        discovery.problems(),
        ["srv:_http._tcp.shop: no answer in time"]
    );
}

#[test]
fn no_more_than_the_bound_are_used() {
    let (discovery, membership) = discovery(&["dns:app:80"]).unwrap();
    let members = (1..=12).map(|last| Resolved {
        addr: Addr::Ip([10, 0, 0, last].into(), 80),
        share: None,
        name: "app".to_owned(),
    });
    let answer = Answer {
        members: members.collect(),
        until: Instant::now() + Duration::from_secs(9),
    };
    discovery.take_answer("dns:app:80".to_owned(), Ok(answer));
    discovery.tell();
    assert_eq!(names(&membership).len(), 10);
    assert_eq!(
        discovery.problems(),
        ["upstreams: 12 are found, and the first are used: --max-upstreams is 10"]
    );
}
