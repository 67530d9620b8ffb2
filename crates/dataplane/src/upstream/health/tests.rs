use std::cell::RefCell;

use podkit_foundation::params::{Addr, ParamSet as _, Values};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::super::membership::{Found, Settings};
use super::super::target::Target;
use super::*;

fn params(ready: &str) -> HealthParams {
    let given = |name: &str| (name == "PODKIT_READY").then(|| ready.to_owned());
    HealthParams::from_values(&Values::gather(
        HealthParams::PARAMS.iter(),
        &|_| vec![],
        &given,
    ))
    .unwrap()
}

fn limits() -> UpstreamLimits {
    UpstreamLimits::from_values(&Values::gather(
        UpstreamLimits::PARAMS.iter(),
        &|_| vec![],
        &|_| None,
    ))
    .unwrap()
}

#[test]
fn forms_of_checks() {
    let check = |text, expected| assert_eq!(Check::parse(text), expected, "{text}");
    check("off", Ok(Check::Off));
    check("tcp", Ok(Check::Tcp));
    check("/healthz?full", Ok(Check::Http("/healthz?full".to_owned())));
    check("grpc", Ok(Check::Grpc(String::new())));
    check("grpc:a.B", Ok(Check::Grpc("a.B".to_owned())));
    check("http", Err(String::new()));
    assert!(Check::parse("/a\r\nb").is_err());
}

#[test]
fn thresholds_are_counted_in_a_row() {
    let params = HealthParams {
        ready_failures: 3,
        ready_successes: 2,
        ..params("tcp")
    };
    let mut streak = Streak::default();
    let mut state = Readiness::Unknown;
    let outcomes = [
        (true, true), // The first decides at once.
        (false, true),
        (false, true),
        (true, true),
        (false, true),
        (false, true),
        (false, false),
        (true, false),
        (false, false),
        (true, false),
        (true, true),
    ];
    for (at, (passed, expected)) in outcomes.into_iter().enumerate() {
        let ready = streak.take(passed, state, &params);
        assert_eq!(ready, expected, "{at}");
        state = if ready {
            Readiness::Ready
        } else {
            Readiness::Unready
        };
    }
    assert!(!Streak::default().take(false, Readiness::Unknown, &params));
}

fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(LocalSet::new().run_until(future))
}

/// What a check by `ready` says of a server that answers each connection with `answer`, and what it was asked.
fn asked(ready: &str, answer: &'static [u8]) -> (Result<(), String>, String) {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let got = Rc::new(RefCell::new(String::new()));
        let seen = Rc::clone(&got);
        tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 1024];
            let count = stream.read(&mut bytes).await.unwrap();
            *seen.borrow_mut() = String::from_utf8_lossy(&bytes[..count]).into_owned();
            stream.write_all(answer).await.unwrap();
        });
        let target = Target::of(Addr::Ip(addr.ip(), addr.port()));
        let pool = Pool::new(
            target,
            limits(),
            UpstreamMetrics::new(&Registry::default()),
            crate::upstream::Outward::default(),
        );
        let result = ask::ask(&pool, &params(ready)).await;
        let got = got.borrow().replace(&addr.to_string(), "ADDR");
        (result, got)
    })
}

#[test]
fn a_check_by_http_is_as_kubernetes_has_it() {
    let check = |answer, expected: Result<(), &str>| {
        let (result, got) = asked("/ready?x", answer);
        assert_eq!(result, expected.map_err(str::to_owned));
        assert!(
            got.starts_with("GET /ready?x HTTP/1.1\r\nHost: ADDR\r\n"),
            "{got}"
        );
    };
    check(b"HTTP/1.1 200 OK\r\n\r\n", Ok(()));
    check(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 399 x\r\n\r\n",
        Ok(()),
    );
    check(b"HTTP/1.1 400 no\r\n\r\n", Err("/ready?x answers 400"));
    check(b"HTTP/1.1 200 OK\r\n", Err("closed without an answer"));
    check(
        b"SSH-2.0-x\r\n\r\n",
        Err("no valid answer: only HTTP/1.0 and HTTP/1.1 are spoken here"),
    );
}

#[test]
fn a_check_by_tcp_wants_a_connection_only() {
    assert_eq!(
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let target = Target::of(Addr::Ip(addr.ip(), addr.port()));
            let pool = Pool::new(
                target,
                limits(),
                UpstreamMetrics::new(&Registry::default()),
                crate::upstream::Outward::default(),
            );
            let up = ask::ask(&pool, &params("tcp")).await;
            drop(listener);
            (up, ask::ask(&pool, &params("tcp")).await)
        }),
        (Ok(()), Err("nobody listens there".to_owned()))
    );
}

#[test]
fn a_check_by_grpc_asks_the_health_service() {
    let serve = |status: u8, service: &'static str| {
        run(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            tokio::task::spawn_local(async move {
                let (stream, _) = listener.accept().await.unwrap();
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let head = http::Response::new(());
                    let mut body = respond.send_response(head, false).unwrap();
                    body.send_data(vec![0, 0, 0, 0, 2, 8, status].into(), false)
                        .unwrap();
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", "0".parse().unwrap());
                    body.send_trailers(trailers).unwrap();
                }
            });
            let target = Target::of(Addr::Ip(addr.ip(), addr.port()));
            let pool = Pool::new(
                target,
                limits(),
                UpstreamMetrics::new(&Registry::default()),
                crate::upstream::Outward::default(),
            );
            ask::ask(&pool, &params(service)).await
        })
    };
    assert_eq!(serve(1, "grpc"), Ok(()));
    assert_eq!(serve(2, "grpc:a.B"), Err("says NOT_SERVING".to_owned()));
    let (result, _) = asked("grpc", b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert!(result.unwrap_err().starts_with("not HTTP/2"), "");
}

#[test]
fn an_endpoint_is_followed_as_long_as_it_is_listed() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let settings = Settings {
            checked: true,
            ..Settings::default()
        };
        let membership = Membership::new(settings);
        let found = Found {
            target: Target::of(Addr::Ip(addr.ip(), addr.port())),
            weight: 1,
            priority: 0,
        };
        membership.set(std::slice::from_ref(&found));
        let endpoint = Arc::clone(&membership.view().endpoints[0]);
        assert_eq!(endpoint.readiness(), Readiness::Unknown);
        let quick = HealthParams {
            ready_period: Duration::from_millis(10),
            ready_failures: 2,
            ..params("tcp")
        };
        let checks = Checks::new(membership.clone(), quick, &limits());
        let watching = tokio::task::spawn_local(checks.watch());
        let until = async |wanted| {
            while endpoint.readiness() != wanted {
                tokio::task::yield_now().await;
            }
        };
        until(Readiness::Ready).await;
        drop(listener);
        until(Readiness::Unready).await;
        assert_eq!(endpoint.reason(), "nobody listens there");
        assert!(endpoint.counts.missed.get() >= 2);
        membership.set(&[]);
        while Arc::strong_count(&endpoint) > 1 {
            tokio::task::yield_now().await;
        }
        watching.abort();
    });
}
