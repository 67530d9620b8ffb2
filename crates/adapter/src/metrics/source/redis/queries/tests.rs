use super::*;
use crate::metrics::source::shown;

fn parse(name: &str, text: &str) -> Result<Vec<Query>, String> {
    words::parse("queries", name, text, queries)
}

const GOOD: &str = "\
- name: jobs_waiting
  help: Jobs
  command: [LLEN, jobs]
  labels: {queue: mail}
- name: stock
  type: counter
  script: return redis.call('HGETALL', KEYS[1])
  keys: [stock]
  each: item
  database: 1
  interval: 30s
- name: oldest
  command: [XINFO, STREAM, jobs]
  value: first-entry.0
";

#[test]
fn queries_are_read_and_asked_in_their_database() {
    let queries = parse("q.yml", GOOD).unwrap();
    assert_eq!(queries.len(), 3);
    assert_eq!(queries[1].interval, Some(Duration::from_secs(30)));
    let mut questions = Questions::default();
    assert_eq!(queries[0].ask(0, &mut questions), 0);
    assert_eq!(queries[1].ask(0, &mut questions), 2);
    assert_eq!(queries[2].ask(0, &mut questions), 4);
    assert_eq!(
        queries[1].words,
        [
            "EVAL_RO",
            "return redis.call('HGETALL', KEYS[1])",
            "1",
            "stock"
        ]
    );
}

#[test]
fn replies_are_samples() {
    let queries = parse("q.yml", GOOD).unwrap();
    let check = |at: usize, reply: &str, expected: &str| {
        let mut batch = Batch::default();
        let query: &Query = &queries[at];
        query.read(&Value::read(reply.as_bytes()).unwrap(), &mut batch);
        let up = shown(&batch);
        let (samples, up) = up.split_at(up.find("podkit_").unwrap());
        assert_eq!(samples, expected, "{reply}");
        let good = if expected.is_empty() { 0 } else { 1 };
        let name = &query.name;
        assert_eq!(
            up,
            format!("podkit_metrics_query_up{{query=\"{name}\"}} gauge {good}\n")
        );
    };
    check(0, ":7\r\n", "jobs_waiting{queue=\"mail\"} gauge 7\n");
    check(0, "-WRONGTYPE\r\n", "");
    check(0, "+x\r\n", "");
    check(
        1,
        "*4\r\n+a\r\n+1\r\n+b\r\n:2\r\n",
        "stock{item=\"a\"} counter 1\nstock{item=\"b\"} counter 2\n",
    );
    check(1, "*2\r\n:1\r\n:1\r\n", "");
    let entry = "*2\r\n+first-entry\r\n*2\r\n+12\r\n*0\r\n";
    check(2, entry, "oldest gauge 12\n");
    check(2, "*0\r\n", "");
}

#[test]
fn words_that_yaml_once_had_for_true_and_false_are_names() {
    let text = "- {name: y, command: [GET, on], labels: {n: off, on: yes}, each: off}";
    let query = parse("q.yml", text).unwrap().remove(0);
    assert_eq!((&*query.name, query.each.as_deref()), ("y", Some("off")));
    assert_eq!(query.words, ["GET", "on"]);
    let labels = [("n", "off"), ("on", "yes")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(query.labels, labels);
}

#[test]
fn what_is_wrong_has_its_place() {
    let check = |text: &str, why: &str| {
        let error = parse("q.yml", text).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    };
    check(
        "",
        "queries=q.yml:1:1: expected a list: \"- name: …\", found nothing",
    );
    check("a: b", "expected a list");
    check("- x", "q.yml:1:3");
    check("- {name: a, comand: [PING]}", "did you mean command?");
    check("- {command: [PING]}", "has no name");
    check("- {name: a b, command: [PING]}", "is no name for a metric");
    check("- {name: a}", "expected one of command and script");
    check("- {name: a, command: []}", "has no words");
    check(
        "- {name: a, command: [SET, k, v]}",
        "SET may do more than read",
    );
    check(
        "- {name: a, command: [CONFIG, SET, k, v]}",
        "CONFIG may do more",
    );
    check("- {name: a, command: [BLPOP, k, '0']}", "BLPOP may do more");
    check("- {name: a, command: [GET]}", "GET does not take 1 words");
    check(
        "- {name: a, command: [PING], keys: [k]}",
        "are for a script",
    );
    check(
        "- {name: a, command: [PING], type: summary}",
        "is not one of gauge, counter, untyped",
    );
    check(
        "- {name: a, command: [PING], interval: 3}",
        "is not a time such as 30s",
    );
    check(
        "- {name: a, command: [PING], database: x}",
        "is not a number",
    );
    check(
        "- {name: a, command: [PING], labels: {__a: b}}",
        "is no name for a label",
    );
    check(
        "- {name: a, command: [PING], labels: {x: b}, each: x}",
        "is one of labels too",
    );
    let twice = "- {name: a, kommand: [PING]}\n- {name: b c, command: [PING]}";
    assert_eq!(
        parse("q.yml", twice).unwrap_err(),
        "queries=q.yml:1:3: [0]: expected one of command and script\n\
         q.yml:1:13: [0].kommand: unknown key; did you mean command?\n\
         q.yml:2:10: [1].name: is no name for a metric: letters, digits, _ and :, no digit first"
    );
    check(
        "- {name: a, command: [PING]}\n- {name: a, command: [PING]}",
        "is there twice",
    );
    check(
        "- {name: a, command: [DBSIZE]}\n- {name: b, command: [PING]}\n---\n- x",
        "q.yml:4:1: a second document",
    );
}
