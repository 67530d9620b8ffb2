//! Upstreams that restart, die and hang while clients ask.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::Module;
use podkit_testkit::{Turn, http, until};
use rustix::process::Signal;

use super::{Load, Rig};

/// Requests that the figure is about.
const REQUESTS: usize = 50_000;

#[test]
fn no_client_notices_that_upstreams_restart_in_turn() {
    let _turn = Turn::alone();
    // Short, so that one that is back is used soon: otherwise most of the time would be spent waiting for that.
    let Some(mut rig) = Rig::new(&["--eject-time=300ms"]) else {
        return;
    };
    let load = Load::start(rig.listen, 16);
    load.wait(500);
    let mut round = 0;
    while load.done() < REQUESTS || round < 6 {
        let at = round % 3;
        // In turn: killed with all that is in flight there, and stopped as one does.
        match round / 3 % 2 {
            0 => rig.upstreams[at].kill(),
            _ => rig.upstreams[at].stop(),
        }
        load.wait(1000);
        rig.upstreams[at].start();
        rig.wait_states("it is back", |states| states[at] == "ready");
        load.wait(500);
        round += 1;
    }
    let (done, failed, slowest) = load.end();
    println!("{done} requests, {round} restarts, the slowest took {slowest:?}");
    assert!(done >= REQUESTS);
    assert_eq!(failed, Vec::<String>::new(), "of {done}");
    let retried = rig.balance.metric("podkit_http_retries_total").unwrap();
    assert!(
        retried > 0.0,
        "nothing was sent again, so nothing was tested"
    );
}

#[test]
fn one_that_hangs_costs_no_more_than_the_head_timeout_and_is_left_out() {
    let _turn = Turn::alone();
    let args = [
        "--response-timeout=3s",
        "--eject-after=3",
        "--eject-time=1m",
        // What is seen is the requests' doing.
        "--ready=off",
    ];
    let Some(rig) = Rig::new(&args) else { return };
    let load = Load::start(rig.listen, 16);
    load.wait(500);
    rig.upstreams[1].signal(Signal::STOP);
    rig.wait_states("it is ejected", |states| states[1] == "ejected");
    let reason = rig.shown()[1]["reason"].as_str().unwrap().to_owned();
    // What was in flight there when it was ejected comes to its end.
    until("its requests are over", || {
        (rig.shown()[1]["in_flight"] == 0).then_some(())
    });
    let after_ejection = load.failures().len();
    load.wait(3000);
    let later = load.failures().len();
    rig.upstreams[1].signal(Signal::CONT);
    let (done, failed, slowest) = load.end();
    assert!(
        reason.contains("failures in a row") && reason.contains("did not answer in time"),
        "{reason}"
    );
    assert_eq!(later, after_ejection, "of {done}: {failed:?}");
    assert!(failed.len() <= 16, "of {done}: {failed:?}");
    // Once, not twice.
    assert!(slowest < Duration::from_millis(5500), "{slowest:?}");
    assert_eq!(rig.shown()[1]["ejected"], 1);
}

#[test]
fn a_try_that_takes_too_long_goes_to_another_upstream() {
    let _turn = Turn::alone();
    let args = [
        "--try-timeout=2s",
        "--eject-after=3",
        "--eject-time=1m",
        "--ready=off",
    ];
    let Some(rig) = Rig::new(&args) else { return };
    let load = Load::start(rig.listen, 16);
    load.wait(500);
    rig.upstreams[1].signal(Signal::STOP);
    rig.wait_states("it is ejected", |states| states[1] == "ejected");
    load.wait(2000);
    rig.upstreams[1].signal(Signal::CONT);
    let (done, failed, _) = load.end();
    assert_eq!(failed, Vec::<String>::new(), "of {done}");
}

#[test]
fn when_all_are_away_the_answer_says_so_and_one_that_comes_back_is_used() {
    let _turn = Turn::shared();
    let Some(mut rig) = Rig::new(&["--ready-failures=1"]) else {
        return;
    };
    for upstream in &mut rig.upstreams {
        upstream.stop();
    }
    rig.wait_states("all are known to be away", |states| {
        states.iter().all(|state| state == "unready")
    });
    let answer = rig.get("/");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.text(), "the upstream accepts no connections\n");
    assert_eq!(rig.balance.admin("/upstreams").json()["panic"], true);
    let ready = rig.balance.admin("/readyz");
    assert_eq!(ready.status, 503);
    assert!(
        ready.text().contains("none of 3 upstreams takes requests"),
        "{}",
        ready.text()
    );
    rig.upstreams[2].start();
    rig.wait_states("one is back", |states| states[2] == "ready");
    assert_eq!(rig.shares(20, |_| rig.get("/")), [0, 0, 20]);
    assert_eq!(rig.balance.admin("/readyz").status, 200);
    assert_eq!(rig.balance.metric("podkit_upstream_panic"), Some(0.0));
}

#[test]
fn what_may_not_be_repeated_is_not() {
    let _turn = Turn::shared();
    // An upstream that takes a request and closes without an answer, and counts.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let counting = std::thread::spawn(move || {
        use std::io::Read as _;
        let mut count = [0_u32; 2];
        // As many as are asked for below: two tries of each GET, one of each POST.
        while count != [2, 1] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 1024];
            match stream.read(&mut bytes).unwrap() {
                0 => {}
                _ => count[usize::from(bytes.starts_with(b"POST"))] += 1,
            }
        }
        count
    });
    // Two names of one address: two upstreams.
    let port = addr.port();
    let upstreams = [
        format!("--upstream=127.0.0.1:{port}"),
        format!("--upstream=localhost:{port}"),
    ];
    let args: Vec<&str> = upstreams
        .iter()
        .map(String::as_str)
        .chain(["--ready=off", "--eject-after=0"])
        .collect();
    let rig = Rig::with(Vec::new(), &args);
    let answer = rig.get("/");
    assert_eq!(answer.status, 502);
    assert_eq!(answer.text(), "the upstream closed without an answer\n");
    let answer =
        podkit_testkit::http::send(rig.listen, "POST", "/", "text/plain", b"once").unwrap();
    assert_eq!(answer.status, 502);
    assert_eq!(counting.join().unwrap(), [2, 1]);
}

/// As Envoy has it: nobody knows what the upstream would have said.
#[test]
fn clients_that_give_up_say_nothing_of_the_upstream() {
    let _turn = Turn::shared();
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = upstream.local_addr().unwrap();
    // It takes requests, begins to answer, and never does.
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in upstream.incoming() {
            let mut stream = stream.unwrap();
            if stream.read(&mut [0; 4096]).unwrap() > 0 {
                stream
                    .write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n")
                    .unwrap();
            }
            held.push(stream);
        }
    });
    let listen = free_addr();
    let args = [
        format!("--upstream={at}"),
        format!("--listen={listen}"),
        "--eject-after=1".to_owned(),
        "--response-timeout=1m".to_owned(),
        "--workers=1".to_owned(),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let balance = Module::start("balance", &args, &[]);
    let shown = || balance.admin("/upstreams").json()["upstreams"][0].clone();
    for _ in 0..4 {
        let mut client = http::dial(listen).unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        assert!(client.peek(&mut [0; 16]).unwrap() > 0);
        assert_eq!(shown()["in_flight"], 1);
        // With bytes that were not read: a reset.
        drop(client);
        until("the request is over", || {
            (shown()["in_flight"] == 0).then_some(())
        });
    }
    let shown = shown();
    assert_eq!(
        (&shown["failed"], &shown["ejected"]),
        (&0.into(), &0.into())
    );
    assert_eq!(shown["failures_in_a_row"], 0);
    let faults = balance.metric("podkit_http_errors_total{fault=\"client\"}");
    assert!(faults.is_some_and(|count| count >= 4.0), "{faults:?}");
}
