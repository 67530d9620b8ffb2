//! What may run, what is kept of it, and how the two sides understand each other.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use podkit_foundation::params::ParamType as _;
use proptest::prelude::*;

use super::allow::Rule;
use super::client;
use super::output::Tail;
use super::wire::{ANSWER_MAX, Answer, Ask, OUTPUT_MAX, Outcome};

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn rules_match_by_words() {
    let check = |rule: &str, asked: &str, expected: bool| {
        let rule_read = Rule::parse(rule).unwrap();
        assert_eq!(rule_read.allows(&words(asked)), expected, "{rule}: {asked}");
    };
    check("nginx -s reload", "nginx -s reload", true);
    check("nginx -s reload", "nginx -s", false);
    check("nginx -s reload", "nginx -s reload -c /etc/shadow", false);
    check("nginx -s reload", "/usr/sbin/nginx -s reload", false);
    check("nginx -t *", "nginx -t", true);
    check("nginx -t *", "nginx -t -c /staged/nginx.conf", true);
    check("nginx -t *", "nginx -T", false);
    check("nginx -t -c *", "nginx -t -g -c", false);
    check("nginx -c * -t", "nginx -c /a -t", true);
    check("nginx -c * -t", "nginx -c -t", false);
    check("nginx -c * -t", "nginx -c /a /b -t", false);
    check("nginx", "", false);
    // A word is a word, whatever is in it: nobody splits or expands it again.
    let one = Rule::parse("sh '-c * ' x").unwrap_err();
    assert!(one.contains("a * is a whole word"), "{one}");
    let quoted = Rule::parse("echo 'a b'").unwrap();
    assert!(quoted.allows(&["echo".to_owned(), "a b".to_owned()]));
    assert!(!quoted.allows(&words("echo a b")));
}

#[test]
fn rules_that_say_too_much_or_nothing_are_refused() {
    for (rule, why) in [
        ("*", "would allow everything"),
        ("* -t", "would allow everything"),
        ("nginx -c /staged/*", "a * is a whole word"),
        ("", "the command is missing"),
        ("nginx 'x", "is not closed"),
    ] {
        let said = Rule::parse(rule).unwrap_err();
        assert!(said.contains(why), "{rule}: {said}");
    }
}

#[test]
fn an_answer_fits_whatever_the_output_is() {
    let answer = Answer {
        outcome: Outcome::Exited(1),
        output: "\u{1}".repeat(OUTPUT_MAX),
    };
    let line = serde_json::to_vec(&answer).unwrap();
    assert!((line.len() as u64) < ANSWER_MAX, "{}", line.len());
    assert_eq!(serde_json::from_slice::<Answer>(&line).unwrap(), answer);
    let unknown = br#"{"words":["a"],"timeout-ms":1,"shell":true}"#;
    assert!(serde_json::from_slice::<Ask>(unknown).is_err());
}

/// An agent that gives this answer; what it was asked, and what its client makes of it.
fn asked(answer: &str) -> (Ask, Result<(), client::NotDone>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let answer = answer.to_owned();
    let agent = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        serde_json::from_str(&line).unwrap()
    });
    let staged = Some(Path::new("/staged/v 1"));
    let timeout = Duration::from_millis(700);
    let done = client::run(&path, "nginx -t -c '{}/nginx.conf'", staged, timeout);
    (agent.join().unwrap(), done)
}

#[test]
fn the_client_asks_and_says_what_came_of_it() {
    let check = |answer: &str, expected: Result<(), &str>| {
        let (ask, done) = asked(answer);
        let words = ["nginx", "-t", "-c", "/staged/v 1/nginx.conf"];
        assert_eq!(ask.words, words);
        assert_eq!(ask.timeout_ms, 700);
        match (done, expected) {
            (Ok(()), Ok(())) => {}
            (Err(error), Err(part)) => {
                assert!(error.why.contains(part), "{error}");
                // Only who had no answer may ask again.
                assert_eq!(error.away, answer.is_empty(), "{error}");
            }
            (done, expected) => panic!("{answer}: {done:?}, expected {expected:?}"),
        }
    };
    check("{\"outcome\":{\"exited\":0},\"output\":\"\"}\n", Ok(()));
    let said = "{\"outcome\":{\"exited\":1},\"output\":\"bad\\nworse\\n\"}\n";
    check(said, Err("nginx.conf: exit code 1: bad; worse"));
    check(
        "{\"outcome\":{\"timed-out\":700},\"output\":\"\"}\n",
        Err("not done within 700 ms"),
    );
    check(
        "{\"outcome\":{\"refused\":\"no\"},\"output\":\"\"}\n",
        Err("the agent refuses \"nginx -t"),
    );
    check("", Err("ended before it had answered"));
    check("hello\n", Err("not an answer"));
    let none = client::run(Path::new("/no/agent"), "true", None, Duration::ZERO);
    let error = none.unwrap_err();
    assert!(error.why.contains("no agent at /no/agent") && error.away);
}

proptest! {
    #[test]
    fn the_last_bytes_are_kept(chunks in proptest::collection::vec(proptest::collection::vec(b'a'..=b'z', 0..40), 0..20)) {
        let mut tail = Tail::new(16);
        for chunk in &chunks {
            tail.add(chunk);
        }
        let all = chunks.concat();
        let expected = &all[all.len().saturating_sub(16)..];
        let kept = tail.text();
        prop_assert_eq!(kept.as_bytes(), expected);
    }

    #[test]
    fn only_what_begins_as_the_rule_is_allowed(asked in proptest::collection::vec("[a-c]{1,2}", 0..5)) {
        let exact = Rule::parse("a b").unwrap();
        prop_assert_eq!(exact.allows(&asked), asked == ["a", "b"]);
        let open = Rule::parse("a b *").unwrap();
        prop_assert_eq!(open.allows(&asked), asked.starts_with(&["a".to_owned(), "b".to_owned()]));
    }
}
