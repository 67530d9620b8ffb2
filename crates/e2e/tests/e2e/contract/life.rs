//! The life of a process: L1 to L4 of the contract.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use podkit_testkit::tls::{Client, shown_certificate};
use podkit_testkit::{http, until};
use rustix::process::Signal;

use super::{Case, modules, modules_that_take};

/// Asks in another thread, and returns once the request is in flight.
fn in_flight(
    case: &Case,
    module: &podkit_testkit::podkit::Module,
) -> std::thread::JoinHandle<std::io::Result<http::Response>> {
    let (serves, tls) = (case.serves, case.tls);
    let before = module
        .metric("podkit_in_flight")
        .expect("every module has it");
    let ask = move || {
        if tls {
            Client::trusting().get(serves, "localhost", "/")
        } else {
            http::get(serves, "/")
        }
    };
    let mut asking = std::thread::spawn(ask);
    until("the request to be in flight", || {
        // It may have been over before it was looked for.
        if asking.is_finished() {
            asking = std::thread::spawn(ask);
        }
        (module.metric("podkit_in_flight")? > before).then_some(())
    });
    asking
}

#[test]
fn l2_sigterm_lets_what_is_in_flight_finish() {
    for case in modules_that_take("500ms") {
        for signal in [Signal::TERM, Signal::INT] {
            let mut module = case.start(&[]);
            let asking = case.slow.then(|| in_flight(&case, &module));
            // A connection that is kept and asks nothing must not hold the process.
            let idle = http::dial(case.place(&module)).unwrap();
            module.process.signal(signal);
            if let Some(asking) = asking {
                let answer = asking.join().unwrap();
                let answer = answer.unwrap_or_else(|error| {
                    panic!("{}: {error}\n{}", case.name, module.process.shown())
                });
                assert_eq!(answer.status, 200, "{}", case.name);
            }
            let stopped = module.process.wait_for(Duration::from_secs(10));
            assert_eq!(stopped.code(), Some(0), "{}", module.process.shown());
            drop(idle);
            assert!(
                TcpStream::connect(case.place(&module)).is_err(),
                "{} still listens",
                case.name
            );
        }
    }
}

#[test]
fn l2_what_does_not_finish_is_cut_and_the_exit_code_says_so() {
    // Nobody waits for the answer.
    let cases = modules_that_take("1m").into_iter();
    for case in cases.filter(|case| case.slow) {
        let mut module = case.start(&["--drain-timeout=50ms"]);
        let asking = in_flight(&case, &module);
        module.process.signal(Signal::TERM);
        assert_eq!(
            module.process.wait().code(),
            Some(1),
            "{}",
            module.process.shown()
        );
        assert!(
            asking.join().unwrap().is_err(),
            "{}: an answer after all",
            case.name
        );
    }
}

#[test]
fn l2_a_lame_duck_is_not_ready_and_still_serves() {
    for case in modules() {
        let mut module = case.start(&["--lame-duck=60s"]);
        module.process.signal(Signal::TERM);
        until("/readyz to say no", || {
            (http::get(module.admin, "/readyz").ok()?.status == 503).then_some(())
        });
        assert_eq!(module.admin("/livez").status, 200, "{}", case.name);
        assert_eq!(module.metric("podkit_ready"), Some(0.0), "{}", case.name);
        assert!(case.ask(&module).is_ok(), "{}: does not accept", case.name);
        // A second signal ends the waiting.
        let asked = Instant::now();
        assert_eq!(module.process.stop(), 0, "{}", module.process.shown());
        assert!(asked.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn l3_sighup_reloads_and_a_bad_state_is_refused() {
    for case in modules() {
        let module = case.start(&[]);
        let count = |result: &str| {
            module
                .metric(&format!("podkit_reloads_total{{result=\"{result}\"}}"))
                .expect("every module counts")
        };
        let reload = |result: &str| {
            let before = count(result);
            module.process.signal(Signal::HUP);
            until("the reload", || (count(result) > before).then_some(()));
        };
        reload("success");
        assert_eq!(module.metric("podkit_last_reload_success"), Some(1.0));
        let Some(reloads) = &case.reloads else {
            assert!(case.ask(&module).is_ok());
            continue;
        };
        let served = || {
            let stream = Client::trusting().connect(case.serves, "localhost");
            shown_certificate(
                &stream.unwrap_or_else(|error| panic!("{error}\n{}", module.process.shown())),
            )
        };
        let before = served();
        reloads.bad();
        reload("failure");
        assert_eq!(module.metric("podkit_last_reload_success"), Some(0.0));
        assert_eq!(served(), before, "the old state stays");
        assert_eq!(module.admin("/readyz").status, 200);
        let page = module.admin("/").text();
        assert!(page.contains("match"), "the page says why: {page}");
        module.process.wait_line("the reason in the log", |line| {
            line.contains("error") && line.contains("match")
        });
        let good = reloads.good();
        reload("success");
        assert_eq!(served(), good, "the new state serves");
        assert_eq!(module.metric("podkit_last_reload_success"), Some(1.0));
    }
}

#[test]
fn l4_a_taken_port_is_one_line_and_exit_1() {
    for case in modules() {
        let _taken = std::net::TcpListener::bind(case.serves).unwrap();
        let mut args: Vec<&str> = case.args.iter().map(String::as_str).collect();
        args.insert(0, &case.name);
        let admin = match case.listens {
            true => podkit_testkit::net::free_addr().to_string(),
            false => case.serves.to_string(),
        };
        args.extend(["--admin", &admin]);
        let finished = podkit_testkit::podkit::podkit(&args);
        assert_eq!(finished.code, Some(1), "{}", finished.err);
        let last = finished.err.lines().last().unwrap_or_default();
        assert!(last.contains(&case.serves.port().to_string()), "{last}");
    }
}
