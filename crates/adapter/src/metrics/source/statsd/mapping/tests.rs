use super::*;

fn read_text(text: &str) -> Result<Mapping, String> {
    parse("map.yml", text, 0)
}

/// What a name becomes: `name{label=value,…}`, or nothing.
fn shown(mapping: &Mapping, name: &str, kind: Kind) -> String {
    let Some(mapped) = mapping.find(name, kind) else {
        return String::new();
    };
    let labels = mapped.labels.iter();
    let labels: Vec<String> = labels
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    format!("{}{{{}}}", mapped.name, labels.join(","))
}

#[test]
fn names_become_what_the_rules_say() {
    let mapping = read_text(
        r#"
mappings:
- match: "test.dispatcher.*.*.*"
  name: "dispatcher_events_total"
  labels: {processor: "$1", action: "$2", outcome: "${3}d"}
- match: "*.signup.*.*"
  name: "signup_${3}_total"
  labels: {provider: "$2", none: "$9", job: "${1}_server", whole: "$0", word: "$1_x"}
- match: "a.*.c"
  name: first
- match: "a.b.*"
  name: second
- match: "a.b"
  name: shorter
- match: "typed.*"
  name: typed_gauge
  match_metric_type: gauge
- match: "typed.*"
  name: typed_rest
- match: '(.*)\.(\w+)--(?P<last>.*)'
  match_type: regex
  name: "by_$2"
  labels: {host: "$1", last: "${last}", all: "$0", cents: "$$1"}
"#,
    )
    .unwrap();
    let check = |name: &str, expected: &str| {
        assert_eq!(shown(&mapping, name, Kind::Counter), expected, "{name}");
    };
    check(
        "test.dispatcher.Foo.send.success",
        "dispatcher_events_total{processor=Foo,action=send,outcome=successd}",
    );
    check(
        "foo.signup.facebook.failure",
        "signup_failure_total{provider=facebook,none=,job=foo_server,whole=,word=}",
    );
    check("a.b.c", "first{}");
    check("a.b.d", "second{}");
    check("a.b", "shorter{}");
    check("a.x.d", "");
    check("a", "");
    check("", "");
    check("typed.x", "typed_rest{}");
    assert_eq!(shown(&mapping, "typed.x", Kind::Gauge), "typed_gauge{}");
    check(
        "web.1.get--200.x",
        "by_get{host=web.1,last=200.x,all=web.1.get--200.x,cents=$1}",
    );
}

#[test]
fn without_ordering_the_nearest_word_wins() {
    let text = |unordered| {
        format!(
            "defaults:\n  glob_disable_ordering: {unordered}\nmappings:\n- match: a.*.*\n  name: stars\n- match: a.b.*\n  name: word\n\
             - match: a.b.c.d\n  name: long\n- match: a.*.c.e\n  name: back\n"
        )
    };
    let ordered = read_text(&text(false)).unwrap();
    let unordered = read_text(&text(true)).unwrap();
    assert_eq!(shown(&ordered, "a.b.c", Kind::Counter), "stars{}");
    assert_eq!(shown(&unordered, "a.b.c", Kind::Counter), "word{}");
    for mapping in [ordered, unordered] {
        assert_eq!(shown(&mapping, "a.b.c.e", Kind::Counter), "back{}");
    }
}

#[test]
fn options_come_from_the_rule_then_from_defaults() {
    let mapping = read_text(
        r#"
defaults:
  timer_type: histogram
  buckets: [1, 2]
  ttl: 1m30s
  summary_options: {max_age: 30s, age_buckets: 3}
mappings:
- {match: a, name: a}
- {match: b, name: b, histogram_options: {buckets: [0.5], native_histogram_bucket_factor: 1.1}, ttl: 500ms}
- match: c
  name: c
  observer_type: summary
  summary_options:
    buf_cap: 1000
    quantiles: [{quantile: 0.99, error: 0.001}, {quantile: 0.5, error: 0.05}]
  scale: 0.001
  help: of c
"#,
    )
    .unwrap();
    let of = |at: usize| &mapping.rules[at].treatment;
    let histogram = |bounds: &[f64]| Observer::Histogram {
        bounds: bounds.into(),
    };
    assert_eq!(of(0).observer, histogram(&[1.0, 2.0]));
    assert_eq!(of(0).ttl, 90);
    assert_eq!(of(1).observer, histogram(&[0.5]));
    assert_eq!(of(1).ttl, 1);
    let quantiles = [0.5, 0.99].into();
    assert_eq!(of(2).observer, Observer::Summary { quantiles });
    let age = Age {
        max: 30.0,
        parts: 3,
    };
    assert_eq!(of(2).age, age);
    assert_eq!(of(2).scale, Some(0.001));
    assert_eq!(of(2).help.as_deref(), Some("of c"));
    assert_eq!(mapping.rest.observer, histogram(&[1.0, 2.0]));
    let none = read_text("# nothing\n").unwrap();
    assert_eq!(none.rest.age, Age::USUAL);
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let check = |text: &str, expected: &str| {
        let why = read_text(text).map(drop).unwrap_err();
        let why = why.strip_prefix("mapping=").unwrap();
        assert!(why.starts_with(expected), "{why}");
    };
    let rule = |line: &str| format!("mappings:\n- match: a.*\n  name: a\n  {line}\n");
    check(
        "maps: []\n",
        "map.yml:1:1: maps: unknown key; there are defaults, mappings",
    );
    check(
        "mappings: 1\n",
        "map.yml:1:11: mappings: expected a list, found the number 1",
    );
    check(
        &rule("lables: {}"),
        "map.yml:4:3: mappings[0].lables: unknown key; did you mean labels?",
    );
    check(
        &rule("labels: {a-b: c}"),
        "map.yml:4:17: mappings[0].labels.a-b: is not a label's name",
    );
    check(
        &rule("action: map2"),
        "map.yml:4:11: mappings[0].action: \"map2\" is not one of map, drop",
    );
    check(
        &rule("ttl: soon"),
        "map.yml:4:8: mappings[0].ttl: expected a time such as 90s, 10m or 1h30m, found",
    );
    check(
        &rule("scale: much"),
        "map.yml:4:10: mappings[0].scale: expected a number, found",
    );
    check(
        &rule("honor_labels: 2"),
        "map.yml:4:17: mappings[0].honor_labels: expected true or false",
    );
    check(
        &rule("histogram_options: {buckets: [1, 1]}"),
        "map.yml:4:36: mappings[0].histogram_options.buckets[1]: is not above",
    );
    check(
        &rule("quantiles: [{quantile: 2}]"),
        "map.yml:4:26: mappings[0].quantiles[0].quantile: is not within 0 and 1",
    );
    check(
        &rule("observer_type: histogram\n  summary_options: {max_age: 1m}"),
        "map.yml:5:3: mappings[0].summary_options: can't go with a histogram",
    );
    check(
        "mappings:\n- match: a..b\n  name: a\n",
        "map.yml:2:10: mappings[0].match: \"a..b\" is not a glob",
    );
    check(
        "mappings:\n- match: 1a\n  name: a\n",
        "map.yml:2:10: mappings[0].match: \"1a\" is not a glob",
    );
    check(
        "mappings:\n- match: a\n  name: a-b\n",
        "map.yml:3:9: mappings[0].name: \"a-b\" is not a metric's name",
    );
    check(
        "mappings:\n- match: a\n",
        "map.yml:2:3: mappings[0].name: \"\" is not a metric's name",
    );
    check(
        "mappings:\n- name: a\n",
        "map.yml:2:3: mappings[0].match: is missing",
    );
    check(
        "mappings:\n- match: (a\n  match_type: regex\n  name: a\n",
        "map.yml:2:10: mappings[0].match: is not a regular expression: unclosed group",
    );
    check(
        "mappings: []\n---\nmappings: []\n",
        "map.yml:3:1: a second document",
    );
    check("a: [\n", "map.yml:");
}

#[test]
fn words_for_truth_are_names_where_names_are() {
    let text = "mappings:\n- {match: n, name: y, labels: {on: off, y: no}, honor_labels: yes}\n";
    let mapping = read_text(text).unwrap();
    assert_eq!(shown(&mapping, "n", Kind::Gauge), "y{on=off,y=no}");
    assert!(mapping.rules[0].honor_labels);
}

#[test]
fn a_deep_tree_is_gone_through_once() {
    // With a star and a word at each part, there would be 2^20 ways.
    let mut text = "mappings:\n".to_owned();
    let words = ["a"; 20];
    for at in 0..20 {
        let mut one = words;
        one[at] = "*";
        text += &format!("- match: \"{}\"\n  name: r{at}\n", one.join("."));
    }
    let mapping = read_text(&text).unwrap();
    assert_eq!(shown(&mapping, &words.join("."), Kind::Gauge), "r0{}");
    let mut name = words;
    name[19] = "b";
    assert_eq!(shown(&mapping, &name.join("."), Kind::Gauge), "r19{}");
}
