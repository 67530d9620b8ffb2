use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use podkit_foundation::lifecycle::Lifecycle;
use podkit_foundation::params::{Addr, ParamSet, Values};
use podkit_foundation::telemetry::metrics::Registry;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::LocalSet;

mod http2;
mod smuggling;
mod staged;

use super::*;
use crate::http::stage::Stages;
use crate::net::Connections;
use crate::net::memory::{End, pair};
use crate::upstream::{Cluster, Target, UpstreamLimits, UpstreamMetrics};

/// What the upstream does on one connection, in order.
#[derive(Debug, Clone)]
enum Do {
    /// Reads until what came ends so.
    Read(&'static str),
    Write(&'static str),
    /// What is written next comes apart from what was written before.
    Apart,
    /// Says no more, until the proxy has hung up.
    Hold,
    /// Ends its side and reads on.
    End,
}

use Do::{Apart, Hold, Read, Write};

/// One connection after another; each is closed when its script is over.
struct Rig {
    script: Vec<Vec<Do>>,
    pieces: Vec<usize>,
    variables: Vec<(&'static str, &'static str)>,
    trusted: bool,
    fields: &'static str,
    scheme: &'static str,
    stages: fn() -> Stages,
}

impl Rig {
    fn new(script: &[&[Do]]) -> Self {
        Self {
            script: script.iter().map(|steps| steps.to_vec()).collect(),
            pieces: vec![usize::MAX],
            variables: Vec::new(),
            trusted: false,
            fields: "",
            scheme: "https",
            stages: Stages::none,
        }
    }

    fn with(mut self, variable: &'static str, value: &'static str) -> Self {
        self.variables.push((variable, value));
        self
    }

    fn params<T: ParamSet>(&self) -> T {
        let given = |name: &str| {
            let found = self.variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        T::from_values(&Values::gather(T::PARAMS.iter(), &|_| vec![], &given)).unwrap()
    }

    /// Runs `client` against a proxy in front of the script; returns what came at the upstream, by connection.
    fn run<F: Future<Output = ()>>(
        self,
        client: impl FnOnce(End) -> F,
    ) -> (Vec<String>, HttpMetrics) {
        // The clock stands still while there is something to do, and goes on to the next deadline when there isn't.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(LocalSet::new().run_until(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("upstream");
            let got = Rc::new(RefCell::new(Vec::new()));
            if !self.script.is_empty() {
                let listener = UnixListener::bind(&path).unwrap();
                drop(tokio::task::spawn_local(play(
                    listener,
                    self.script.clone(),
                    Rc::clone(&got),
                )));
            }
            let registry = Registry::default();
            let metrics = HttpMetrics::new(&registry);
            let worker = Worker::new(&Lifecycle::new(), &registry, &Connections::at_most(9));
            drop(tokio::task::spawn_local(Rc::clone(&worker).watch()));
            let target = Target::of(Addr::Unix(path));
            let limits: UpstreamLimits = self.params();
            let cluster = Cluster::of(
                target,
                limits,
                UpstreamMetrics::new(&registry),
                crate::upstream::Outward::default(),
            );
            let settings = ProxySettings {
                limits: self.params(),
                http2: self.params(),
                scheme: self.scheme,
                port: Some(8443),
            };
            let forward = ForwardSettings {
                trust: match self.trusted {
                    true => Trust::Everybody,
                    false => Trust::Nobody,
                },
                response_fields: self.fields.to_owned(),
                ..ForwardSettings::default()
            };
            let route = Route::new((self.stages)(), Forward::new(forward, cluster));
            let proxy = Proxy::new(settings, Rc::new(route), metrics.clone());
            let (near, far) = pair(&self.pieces, 256 * 1024);
            let serving = tokio::task::spawn_local(async move {
                let peer = Peer::from(std::net::SocketAddr::from(([10, 0, 0, 7], 1234)));
                proxy.serve_on(near, peer, worker, b"").await;
            });
            tokio::time::timeout(Duration::from_secs(20), client(far))
                .await
                .unwrap();
            tokio::time::timeout(Duration::from_secs(20), serving)
                .await
                .unwrap()
                .unwrap();
            // What was sent last is there; the upstream has to have its turn to read it.
            turns().await;
            let got = got.take();
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            (got.into_iter().map(text).collect(), metrics.clone())
        }))
    }

    /// The answers to `input`, after which the client says that it has sent all; and what the upstream got.
    fn answers(self, input: &str) -> (String, Vec<String>) {
        let answers = Rc::new(RefCell::new(Vec::new()));
        let (got, _) = self.run(|mut end| {
            let answers = Rc::clone(&answers);
            async move {
                end.put(input.as_bytes()).await;
                end.end().await;
                *answers.borrow_mut() = end.get_all().await;
            }
        });
        let text = String::from_utf8_lossy(&answers.borrow()).into_owned();
        (without_dates(&text), got)
    }
}

fn without_dates(text: &str) -> String {
    text.split_inclusive("\r\n")
        .filter(|line| !line.starts_with("Date: "))
        .collect()
}

/// Lets all others do what they can, the sockets looked at in between.
async fn turns() {
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}

async fn play(listener: UnixListener, script: Vec<Vec<Do>>, got: Rc<RefCell<Vec<Vec<u8>>>>) {
    for steps in script {
        let (mut stream, _) = listener.accept().await.unwrap();
        got.borrow_mut().push(Vec::new());
        let index = got.borrow().len() - 1;
        for step in steps {
            match step {
                Do::Read(tail) => {
                    let mut seen = Vec::new();
                    while !seen.ends_with(tail.as_bytes()) {
                        if read_into(&mut stream, &got, index, &mut seen).await == 0 {
                            break;
                        }
                    }
                }
                // The proxy may be gone already, which the test finds out.
                Do::Write(text) => drop(stream.write_all(text.as_bytes()).await),
                Apart => turns().await,
                Hold => while read_into(&mut stream, &got, index, &mut Vec::new()).await > 0 {},
                Do::End => {
                    stream.shutdown().await.unwrap();
                    while read_into(&mut stream, &got, index, &mut Vec::new()).await > 0 {}
                }
            }
        }
    }
}

async fn read_into(
    stream: &mut UnixStream,
    got: &RefCell<Vec<Vec<u8>>>,
    index: usize,
    seen: &mut Vec<u8>,
) -> usize {
    let mut bytes = [0; 4096];
    let count = stream.read(&mut bytes).await.unwrap_or(0);
    seen.extend_from_slice(&bytes[..count]);
    got.borrow_mut()[index].extend_from_slice(&bytes[..count]);
    count
}

const FORWARDED: &str = "X-Forwarded-For: 10.0.0.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 8443\r\n\
    X-Forwarded-Host: h\r\nForwarded: for=10.0.0.7;proto=https;host=\"h\"\r\nVia: 1.1 podkit\r\n";

const GET: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const OK_SENT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 podkit\r\n\r\nok";

#[test]
fn heads_are_forwarded_without_what_is_hop_by_hop() {
    let rig = Rig::new(&[&[
        Read("\r\n\r\n"),
        Write(
            "HTTP/1.1 200 Fine\r\nServer: s\r\nConnection: keep-alive, x-b\r\nKeep-Alive: timeout=5\r\nX-A: 1\r\nX-B: 1\r\n\
               Content-Length: 2\r\nStrict-Transport-Security: max-age=1\r\n\r\nok",
        ),
        Do::End,
    ]]);
    let rig = Rig {
        fields: "Strict-Transport-Security: max-age=9\r\n",
        ..rig
    };
    let (answer, got) = rig.answers(
        "GET /a?b HTTP/1.1\r\nHost: h\r\nTraceparent: t\r\nConnection: x-c\r\nX-C: 1\r\nX-D: 1\r\nX-Forwarded-For: 6.6.6.6\r\n\
         X-Forwarded-Host: evil\r\nX_Forwarded_Proto: http\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\
         X-Forwarded-Client-Cert: me\r\nVia: 1.0 other\r\nTE: trailers\r\n\r\n",
    );
    let expected = format!(
        "GET /a?b HTTP/1.1\r\nHost: h\r\nTraceparent: t\r\nX-D: 1\r\nVia: 1.0 other\r\n{FORWARDED}\
         Connection: te\r\nTE: trailers\r\n\r\n"
    );
    assert_eq!(got, [expected]);
    assert_eq!(
        answer,
        "HTTP/1.1 200 Fine\r\nServer: s\r\nX-A: 1\r\nContent-Length: 2\r\nStrict-Transport-Security: max-age=9\r\n\
         Via: 1.1 podkit\r\n\r\nok"
    );
}

#[test]
fn forwarded_fields_of_a_trusted_client_are_added_to() {
    let rig = Rig {
        trusted: true,
        ..Rig::new(&[&[Read("\r\n\r\n"), Write(OK), Do::End]])
    };
    let (_, got) = rig.answers(
        "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\nX-Forwarded-Proto: http\r\n\
         Forwarded: for=1.1.1.1\r\n\r\n",
    );
    let expected = "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n\
         X-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.0.0.7\r\nForwarded: for=1.1.1.1, for=10.0.0.7;proto=https;host=\"h\"\r\n\
         Via: 1.1 podkit\r\n\r\n";
    assert_eq!(got, [expected]);
}

#[test]
fn absolute_targets_and_old_clients() {
    let rig = Rig::new(&[&[
        Read("\r\n\r\n"),
        Write(OK),
        Read("\r\n\r\n"),
        Write(OK),
        Do::End,
    ]]);
    let (answer, got) = rig.answers(
        "GET http://h HTTP/1.1\r\nHost: other\r\n\r\nGET /old HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\r\n",
    );
    let old = FORWARDED
        .replace("Host: h", "Host: localhost")
        .replace("\"h\"", "\"localhost\"")
        .replace("1.1 podkit", "1.0 podkit");
    let expected = format!(
        "GET / HTTP/1.1\r\nHost: h\r\n{FORWARDED}\r\nGET /old HTTP/1.1\r\nHost: localhost\r\n{old}\r\n"
    );
    assert_eq!(got, [expected]);
    let kept = OK_SENT.replace("podkit\r\n", "podkit\r\nConnection: keep-alive\r\n");
    assert_eq!(answer, format!("{OK_SENT}{kept}"));
}

/// Requests with bodies of every kind, pipelined, and answers of every kind.
fn sequence() -> (Rig, &'static str, String, String) {
    let input = "POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello\
        PUT /2 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\nHost: evil\r\n\r\n\
        HEAD /3 HTTP/1.1\r\nHost: h\r\n\r\n\
        GET /4 HTTP/1.1\r\nHost: h\r\n\r\n\
        GET /5 HTTP/1.1\r\nHost: h\r\n\r\n";
    let rig = Rig::new(&[&[
        Read("hello"),
        Write(OK),
        Read("0\r\nT: 1\r\n\r\n"),
        Write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        Write("2\r\n"),
        Write("ok\r\n"),
        Write("0\r\nX-T: 2\r\nContent-Length: 9\r\n\r\n"),
        Read("\r\n\r\n"),
        Write("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
        Read("\r\n\r\n"),
        Write(
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 304 Not Modified\nETag: e\nContent-Length: 7\n\n",
        ),
        Read("\r\n\r\n"),
        Write("HTTP/1.0 200 OK\r\n\r\nuntil "),
        Apart,
        Write("close"),
    ]]);
    let got = format!(
        "POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n{FORWARDED}\r\nhello\
         PUT /2 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n{FORWARDED}\r\n3;x\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n\
         HEAD /3 HTTP/1.1\r\nHost: h\r\n{FORWARDED}\r\n\
         GET /4 HTTP/1.1\r\nHost: h\r\n{FORWARDED}\r\n\
         GET /5 HTTP/1.1\r\nHost: h\r\n{FORWARDED}\r\n"
    );
    let answers = format!(
        "{OK_SENT}\
         HTTP/1.1 200 OK\r\nVia: 1.1 podkit\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 2\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 99\r\nVia: 1.1 podkit\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\nLink: x\r\nVia: 1.1 podkit\r\n\r\n\
         HTTP/1.1 304 Not Modified\r\nETag: e\r\nContent-Length: 7\r\nVia: 1.1 podkit\r\n\r\n\
         HTTP/1.1 200 OK\r\nVia: 1.0 podkit\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    (rig, input, got, answers)
}

#[track_caller]
fn check_sequence(pieces: Vec<usize>) {
    let (rig, input, expected_got, expected) = sequence();
    let (answer, got) = Rig { pieces, ..rig }.answers(input);
    assert_eq!(got, [expected_got]);
    let (before, last) = answer.split_at(expected.len());
    assert_eq!(before, expected);
    // The last body is cut into chunks as it came.
    assert!(
        last == "6\r\nuntil \r\n5\r\nclose\r\n0\r\n\r\n" || last == "b\r\nuntil close\r\n0\r\n\r\n",
        "{last}"
    );
}

#[test]
fn a_pipelined_sequence_is_forwarded_in_order() {
    check_sequence(vec![usize::MAX]);
    check_sequence(vec![1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn chunking_changes_nothing(pieces in proptest::collection::vec(1_usize..300, 1..20)) {
        check_sequence(pieces);
    }
}

#[test]
fn old_clients_get_bodies_without_chunks() {
    let rig = Rig::new(&[&[
        Read("\r\n\r\n"),
        Write(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n3\r\ncde\r\n0\r\nT: 1\r\n\r\n",
        ),
        Do::End,
    ]]);
    let (answer, _) = rig.answers("GET / HTTP/1.0\r\nHost: h\r\n\r\n");
    assert_eq!(
        answer,
        "HTTP/1.1 200 OK\r\nVia: 1.1 podkit\r\nConnection: close\r\n\r\nabcde"
    );
}

#[test]
fn a_kept_connection_that_was_closed_is_replaced_where_that_is_safe() {
    let twice = format!("{GET}{GET}");
    let rig = Rig::new(&[
        &[Read("\r\n\r\n"), Write(OK), Read("\r\n\r\n")],
        &[Read("\r\n\r\n"), Write(OK), Do::End],
    ]);
    let (answer, got) = rig.answers(&twice);
    assert_eq!(answer, format!("{OK_SENT}{OK_SENT}"));
    assert_eq!(got.len(), 2);
    // The upstream may have acted on a POST.
    let rig = Rig::new(&[&[Read("\r\n\r\n"), Write(OK), Read("\r\n\r\nx")], &[]]);
    let (answer, got) = rig.answers(&format!(
        "{GET}POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx"
    ));
    assert!(
        answer.starts_with(&format!("{OK_SENT}HTTP/1.1 502 ")),
        "{answer}"
    );
    assert_eq!(got.len(), 1);
}

#[test]
fn what_the_upstream_breaks_off_is_broken_off() {
    let check = |reply: &'static str, expected: &str| {
        let (answer, _) = Rig::new(&[&[Read("\r\n\r\n"), Write(reply)]]).answers(GET);
        assert_eq!(answer, expected, "{reply:?}");
    };
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nVia: 1.1 podkit\r\n\r\nab!",
    );
    let chunked = "HTTP/1.1 200 OK\r\nVia: 1.1 podkit\r\nTransfer-Encoding: chunked\r\n\r\n";
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        &format!("{chunked}2\r\nab\r\n!"),
    );
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
        &format!("{chunked}2\r\nab\r\n!"),
    );
}

#[test]
fn wrong_answers_are_502() {
    for reply in [
        "",
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: 1\r\n B: 2\r\n\r\n",
    ] {
        let (answer, _) = Rig::new(&[&[Read("\r\n\r\n"), Write(reply)]]).answers(GET);
        assert!(
            answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"),
            "{reply:?}: {answer}"
        );
    }
}

#[test]
fn an_upstream_that_is_not_there_is_503_and_the_connection_goes_on() {
    let (answer, _) = Rig::new(&[]).answers(&format!("{GET}{GET}"));
    assert_eq!(
        answer
            .matches("HTTP/1.1 503 Service Unavailable\r\n")
            .count(),
        2,
        "{answer}"
    );
}

#[test]
fn silence_of_either_side_ends() {
    let (answer, _) = Rig::new(&[&[Read("\r\n\r\n"), Hold]])
        .with("PODKIT_RESPONSE_TIMEOUT", "100ms")
        .answers(GET);
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    let silent = |input: &'static str, variable, expected: &'static str| {
        let rig = Rig::new(&[&[Read("\r\n\r\n"), Hold]]).with(variable, "100ms");
        rig.run(|mut end| async move {
            end.put(input.as_bytes()).await;
            let answer = String::from_utf8(end.get_all().await).unwrap();
            assert!(answer.starts_with(expected), "{answer}");
        });
    };
    silent("GET / HTTP/1.1\r\n", "PODKIT_HEAD_TIMEOUT", "HTTP/1.1 408 ");
    let body = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc";
    silent(body, "PODKIT_BODY_TIMEOUT", "HTTP/1.1 408 ");
}

#[test]
fn a_body_that_drips_is_cut() {
    let rig = Rig::new(&[&[Read("never")]])
        .with("PODKIT_BODY_TIMEOUT", "100ms")
        .with("PODKIT_MIN_BODY_RATE", "1Ki");
    rig.run(|mut end| async move {
        end.put(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n")
            .await;
        let begin = tokio::time::Instant::now();
        for _ in 0..50 {
            end.put(b"x").await;
            tokio::time::advance(Duration::from_millis(20)).await;
        }
        let answer = String::from_utf8(end.get_all().await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(begin.elapsed() < Duration::from_secs(2));
    });
}

#[test]
fn a_stream_each_way_may_be_silent() {
    // The answer has begun: the client's pauses are its business (gRPC).
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n";
    let rig = Rig::new(&[&[
        Read("1\r\na\r\n"),
        Write(answer),
        Read("0\r\n\r\n"),
        Write("0\r\n\r\n"),
    ]])
    .with("PODKIT_BODY_TIMEOUT", "100ms")
    .with("PODKIT_RESPONSE_TIMEOUT", "100ms")
    .with("PODKIT_MIN_BODY_RATE", "1Ki");
    rig.run(|mut end| async move {
        end.put(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
            .await;
        assert!(!end.get_until(b"2\r\nhi\r\n").await.is_empty());
        tokio::time::advance(Duration::from_millis(400)).await;
        turns().await;
        end.put(b"0\r\n\r\n").await;
        end.end().await;
        let answer = String::from_utf8(end.get_all().await).unwrap();
        assert_eq!(answer, "0\r\n\r\n");
    });
}

#[test]
fn bodies_are_bounded() {
    let check = |body: &str| {
        let rig = Rig::new(&[&[Do::End]]).with("PODKIT_MAX_BODY_BYTES", "8");
        let (answer, _) = rig.answers(&format!("POST / HTTP/1.1\r\nHost: h\r\n{body}"));
        assert!(answer.starts_with("HTTP/1.1 413 "), "{body}: {answer}");
    };
    check("Content-Length: 9\r\n\r\n123456789");
    check("Transfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n5\r\n12345\r\n0\r\n\r\n");
}

#[test]
fn an_answer_may_come_before_the_body_has_gone() {
    let rig = Rig::new(&[&[
        Read("\r\n\r\n"),
        Write("HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno"),
        Hold,
    ]]);
    rig.run(|mut end| async move {
        end.put(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n").await;
        let answer = without_dates(&String::from_utf8(end.get_all().await).unwrap());
        let expected = "HTTP/1.1 413 No\r\nContent-Length: 2\r\nVia: 1.1 podkit\r\nConnection: close\r\n\r\nno";
        assert_eq!(answer, expected);
    });
}

#[test]
fn continue_comes_from_the_upstream() {
    let rig = Rig::new(&[&[
        Read("\r\n\r\n"),
        Write("HTTP/1.1 100 Continue\r\n\r\n"),
        Read("body"),
        Write(OK),
        Do::End,
    ]]);
    let (got, _) = rig.run(|mut end| async move {
        end.put(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
            .await;
        let interim = end.get_until(b"\r\n\r\n").await;
        assert_eq!(interim, b"HTTP/1.1 100 Continue\r\nVia: 1.1 podkit\r\n\r\n");
        end.put(b"body").await;
        end.end().await;
        let answer = String::from_utf8(end.get_all().await).unwrap();
        assert_eq!(without_dates(&answer), OK_SENT);
    });
    assert!(got[0].contains("Expect: 100-continue\r\n") && got[0].ends_with("\r\n\r\nbody"));
}

#[test]
fn an_upgrade_is_a_tunnel_with_half_close() {
    let rig = Rig::new(&[&[
        Read("\r\n\r\n"),
        Write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst",
        ),
        Read("early late"),
        Write(" answer"),
        Do::End,
    ]]);
    let (got, metrics) = rig.run(|mut end| async move {
        end.put(b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\nearly").await;
        let head = end.get_until(b"first").await;
        let expected = "HTTP/1.1 101 Switching Protocols\r\nVia: 1.1 podkit\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nfirst";
        assert_eq!(String::from_utf8(head).unwrap(), expected);
        end.put(b" late").await;
        end.end().await;
        assert_eq!(end.get_all().await, b" answer");
    });
    assert!(
        got[0].contains("\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
        "{}",
        got[0]
    );
    assert_eq!(metrics.answered(), 1);
}

#[test]
fn large_bodies_go_through_both_ways() {
    let body: &'static str = Box::leak("0123456789abcdef".repeat(40_000).into_boxed_str());
    let reply: &'static str = Box::leak(
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_boxed_str(),
    );
    let rig = Rig::new(&[&[Read("end"), Write(reply), Do::End]]);
    let rig = Rig {
        pieces: vec![70_000, 3, 16_384],
        ..rig
    };
    let input = format!(
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}end",
        body.len() + 3
    );
    let (answer, got) = rig.answers(&input);
    assert!(answer.ends_with(body) && got[0].ends_with(&format!("{body}end")));
}

#[test]
fn refused_requests_are_told_and_counted_and_never_forwarded() {
    let rig = Rig::new(&[&[Do::End]]);
    let (got, metrics) = rig.run(|mut end| async move {
        end.put(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
        let answer = String::from_utf8(end.get_all().await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(answer.ends_with("both Content-Length and Transfer-Encoding\n"), "{answer}");
    });
    assert!(got.is_empty());
    assert_eq!((metrics.faulted(), metrics.answered()), ([1, 0, 0], 1));
}
