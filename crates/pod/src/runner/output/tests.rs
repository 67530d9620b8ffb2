use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use super::render::harmless;
use super::*;
use crate::runner::machine::{State, Terminated};
use crate::runner::testing::{container, plan};

fn render(format: OutputFormat, terminal: bool, color: bool, item: &Item<'_>) -> String {
    let renderer = Renderer::new(
        &plan(vec![container("app"), container("tls")]),
        format,
        terminal,
        color,
        false,
    );
    let mut line = vec![];
    renderer.render(SystemTime::UNIX_EPOCH, item, &mut line);
    String::from_utf8(line).unwrap()
}

fn log(line: &[u8]) -> Item<'_> {
    Item::Log {
        container: 1,
        stream: Stream::Stderr,
        line,
        partial: false,
    }
}

#[test]
fn a_log_line_has_its_containers_prefix() {
    let text = |item| render(OutputFormat::Text, false, false, &item);
    assert_eq!(text(log(b"hello\r")), "tls | hello\n");
    assert_eq!(
        text(log(b"\x1b[31mred\x1b[0m")),
        "tls | \x1b[31mred\x1b[0m\n"
    );
}

#[test]
fn on_a_terminal_a_log_cannot_move_the_cursor() {
    let text = |color, item| render(OutputFormat::Text, true, color, &item);
    let evil = b"\x1b]0;title\x07\x1b[2J\x1b[31mred\x9b1A";
    assert_eq!(
        text(false, log(evil)),
        "tls | \\u{1b}]0;title\\u{7}\\u{1b}[2J\\u{1b}[31mred\u{fffd}1A\n"
    );
    // Where colours are shown, a log's own pass, and end with the line.
    assert_eq!(
        text(true, log(evil)),
        "\x1b[33mtls |\x1b[0m \\u{1b}]0;title\\u{7}\\u{1b}[2J\x1b[31mred\u{fffd}1A\x1b[0m\n"
    );
}

#[test]
fn events_and_states_in_text() {
    let text = |item: Item<'_>| render(OutputFormat::Text, false, false, &item);
    let event = |warning, container| Event {
        warning,
        reason: "Killing",
        container,
        message: "Stopping container app\n".to_owned(),
        again: false,
    };
    assert_eq!(
        text(Item::Event(&event(false, Some(0)))),
        "app * Killing: Stopping container app\\n\n"
    );
    assert_eq!(
        text(Item::Event(&event(true, None))),
        "web ! Killing: Stopping container app\\n\n"
    );
    let status = ContainerStatus {
        state: State::Terminated(Terminated {
            code: 137,
            signal: Some(9),
            reason: "OOMKilled",
            message: String::new(),
            started: None,
            finished: SystemTime::UNIX_EPOCH,
        }),
        last: None,
        image_id: String::new(),
        restarts: 2,
        ready: false,
        started: false,
    };
    let item = Item::Container {
        container: 0,
        status: &status,
        turn: Turn::Neither,
    };
    assert_eq!(
        text(item),
        "app = Terminated: OOMKilled (exit code 137, signal 9)\n"
    );
    let item = Item::Container {
        container: 0,
        status: &status,
        turn: Turn::Neither,
    };
    let json: serde_json::Value =
        serde_json::from_str(&render(OutputFormat::Json, false, false, &item)).unwrap();
    assert_eq!(json["type"], "container");
    assert_eq!(json["exitCode"], 137);
    assert_eq!(json["restarts"], 2);
}

#[test]
fn json_is_one_object_a_line_whatever_the_log_says() {
    for line in [&b"a\"b\\\x1b\n\xff"[..], b"", "ü\u{2028}".as_bytes()] {
        let text = render(OutputFormat::Json, true, true, &log(line));
        assert_eq!(text.matches('\n').count(), 1);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["line"], *String::from_utf8_lossy(line));
        assert_eq!(json["stream"], "stderr");
        assert_eq!(json["ts"], "1970-01-01T00:00:00.000Z");
    }
}

proptest::proptest! {
    #[test]
    fn harmless_text_has_no_control_but_tab_and_colour(text in ".*") {
        let mut out = vec![];
        harmless(&text, false, &mut out);
        let out = String::from_utf8(out).unwrap();
        proptest::prop_assert!(out.chars().all(|c| !c.is_control() || c == '\t'));
    }
}

#[test]
fn a_queue_writes_everything_in_order_and_ends() {
    let (sent, received) = mpsc::channel();
    let queue = Queue::start(move |bytes| {
        sent.send(bytes.to_vec()).unwrap();
        Ok(())
    });
    for n in 0..1000 {
        queue.push(format!("{n}\n").as_bytes());
    }
    queue.finish(Duration::from_secs(10));
    let all: Vec<u8> = received.iter().flatten().collect();
    let expected: String = (0..1000).map(|n| format!("{n}\n")).collect();
    assert_eq!(String::from_utf8(all).unwrap(), expected);
}

#[tokio::test]
async fn a_blocked_output_holds_up_logs_and_not_its_owner() {
    let (gate, opens) = mpsc::channel::<()>();
    let (sent, received) = mpsc::channel();
    let queue = Queue::start(move |bytes| {
        let _open = opens.recv();
        sent.send(bytes.len()).unwrap();
        Ok(())
    });
    queue.push(b"x\n");
    let line = [b'y'; 1024];
    for _ in 0..4096 {
        queue.push(&line);
    }
    let waits = tokio::time::timeout(Duration::from_millis(20), queue.room()).await;
    assert!(waits.is_err(), "there should be no room");
    drop(gate);
    queue.room().await;
    queue.push(b"z\n");
    queue.finish(Duration::from_secs(10));
    // Bounded: a megabyte in the queue and at most one with the writer, of the four; the rest is counted.
    let total: usize = received.iter().sum();
    assert!(total < 2_200_000, "{total} bytes");
}

#[tokio::test]
async fn a_broken_output_is_forgotten() {
    let queue = Queue::start(|_| Err(std::io::ErrorKind::BrokenPipe.into()));
    let line = [b'y'; 1024];
    for _ in 0..200 {
        queue.push(&line);
    }
    queue.room().await;
    queue.finish(Duration::from_secs(10));
}
