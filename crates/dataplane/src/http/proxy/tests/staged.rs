//! What stages see, and what becomes of their verdicts.

use std::cell::Cell;
use std::task::Poll;

use super::*;
use crate::http::stage::{Pass, Reply, Stage, Verdict, View, Waited};

thread_local! {
    /// What the stages of this thread's test hold, and have held.
    static HELD: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn held() -> (u64, u64) {
    HELD.with(Cell::get)
}

/// Does what the path says.
struct ByPath;

fn refused() -> Reply {
    Reply {
        status: 429,
        content_type: "text/plain",
        body: b"no\n".as_slice().into(),
    }
}

fn hold_one() {
    let (now, ever) = held();
    HELD.set((now + 1, ever + 1));
}

impl Stage for ByPath {
    fn look(&self, request: &View<'_>, pass: &mut Pass<'_>) -> Verdict {
        pass.fields().put(b"X-Stage: seen\r\n");
        let wait = |refuse: bool| {
            let mut polled = false;
            Verdict::Wait(Box::pin(std::future::poll_fn(move |cx| {
                if !polled {
                    polled = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                if !refuse {
                    hold_one();
                }
                Poll::Ready(Waited {
                    fields: b"X-Waited: 1\r\n".to_vec(),
                    held: (!refuse).then_some(1).into_iter().collect(),
                    reply: refuse.then(refused),
                })
            })))
        };
        match request.path() {
            b"/no" => Verdict::Answer(refused()),
            b"/wait" => wait(false),
            b"/wait-no" => wait(true),
            _ => {
                hold_one();
                pass.hold(1);
                Verdict::Pass
            }
        }
    }

    fn done(&self, count: u64) {
        let (now, ever) = held();
        HELD.set((now - count, ever));
    }
}

/// Writes down what it sees, and how much is held before it.
struct Notes;

impl Stage for Notes {
    fn look(&self, request: &View<'_>, _: &mut Pass<'_>) -> Verdict {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let or = |bytes: Option<&[u8]>| bytes.map_or("-".to_owned(), text);
        let all: Vec<_> = request.fields("x-a").map(text).collect();
        let seen = [
            text(request.method()),
            text(request.path()),
            or(request.query()),
            or(request.query_value("k")),
            or(request.cookie("c")),
            all.join("|"),
            or(request.authority()),
            request.peer().to_string(),
            request.scheme().to_owned(),
            held().0.to_string(),
        ];
        SEEN.with_borrow_mut(|all| all.push(seen.join(" ")));
        Verdict::Pass
    }
}

fn chain() -> Stages {
    Stages::new(vec![Rc::new(ByPath), Rc::new(Notes)])
}

fn staged(script: &[&[Do]]) -> Rig {
    HELD.set((0, 0));
    SEEN.take();
    Rig {
        stages: chain,
        ..Rig::new(script)
    }
}

const REFUSED: &str = "HTTP/1.1 429 Too Many Requests\r\nX-Stage: seen\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nno\n";

#[test]
fn a_stage_sees_the_request_and_adds_to_the_answer() {
    let rig = staged(&[&[Read("\r\n\r\n"), Write(OK)]]);
    let (answer, got) = rig.answers(
        "GET http://o/p/q?a=1&kk=0&k=v%20&k=2 HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nCookie: cc=0; c=7\r\nx-a:  2\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\r\nX-Stage: seen\r\n"), "{answer}");
    assert_eq!(got.len(), 1);
    let seen = "GET /p/q a=1&kk=0&k=v%20&k=2 v%20 7 1|2 o 10.0.0.7:1234 https 1";
    assert_eq!(SEEN.take(), [seen]);
    assert_eq!(held(), (0, 1));
}

#[test]
fn what_a_stage_answers_is_not_forwarded_and_the_connection_goes_on() {
    let rig = staged(&[&[Read("\r\n\r\n"), Write(OK)]]);
    // A body that has come whole is thrown away; HEAD gets no body.
    let (answer, got) = rig.answers(
        "POST /no HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcHEAD /no HTTP/1.1\r\nHost: h\r\n\r\n\
         GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    );
    let expected = format!(
        "{REFUSED}{}HTTP/1.1 200 OK\r\n",
        &REFUSED[..REFUSED.len() - 3]
    );
    assert!(answer.starts_with(&expected), "{answer}");
    assert_eq!(got.len(), 1);
    assert!(got[0].starts_with("GET / HTTP/1.1\r\n"), "{}", got[0]);
    assert_eq!(held(), (0, 1));
}

#[test]
fn an_answer_before_the_body_closes_the_connection() {
    let (answer, got) = staged(&[]).answers(
        "POST /no HTTP/1.1\r\nHost: h\r\nContent-Length: 99\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    );
    let closing = REFUSED.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    assert_eq!((answer, got.len()), (closing, 0));
}

#[test]
fn a_stage_may_wait() {
    let rig = staged(&[&[Read("\r\n\r\n"), Write(OK)]]);
    let (answer, got) = rig
        .answers("GET /wait-no HTTP/1.1\r\nHost: h\r\n\r\nGET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
    let refused = REFUSED.replace("seen\r\n", "seen\r\nX-Waited: 1\r\n");
    assert!(answer.starts_with(&refused), "{answer}");
    let rest = &answer[refused.len()..];
    assert!(rest.starts_with("HTTP/1.1 200 OK\r\n"), "{rest}");
    assert_eq!(
        rest.matches("X-Stage: seen\r\nX-Waited: 1\r\n").count(),
        1,
        "{rest}"
    );
    assert_eq!(got.len(), 1);
    // The stage behind the one that waited looks once, and only at what goes on.
    assert_eq!(SEEN.with_borrow(Vec::len), 1);
    assert_eq!(held(), (0, 1));
}

#[test]
fn what_is_held_is_given_back_when_nobody_answers() {
    let (answer, _) = staged(&[]).answers(GET);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nX-Stage: seen\r\n"), "{answer}");
    assert_eq!(held(), (0, 1));
}
