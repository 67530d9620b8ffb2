//! Reading YAML: positions, Go's types, aliases, bounds.

use proptest::prelude::*;

use super::{check, container, errors, good};
use crate::manifest::node::Value;
use crate::manifest::{parse, scalar};

#[test]
fn scalars_are_typed_as_go_does() {
    for text in ["y", "Y", "yes", "on", "True", "TRUE"] {
        assert!(
            matches!(scalar::resolve(text), Value::Bool(true, _)),
            "{text}"
        );
    }
    for text in ["n", "No", "off", "FALSE"] {
        assert!(
            matches!(scalar::resolve(text), Value::Bool(false, _)),
            "{text}"
        );
    }
    for text in ["", "~", "null", "NULL"] {
        assert_eq!(scalar::resolve(text), Value::Null, "{text}");
    }
    let int = |text: &str| match scalar::resolve(text) {
        Value::Int(value, _) => Some(value),
        _ => None,
    };
    assert_eq!(int("0644"), Some(420));
    assert_eq!(int("0o644"), Some(420));
    assert_eq!(int("0x1F"), Some(31));
    assert_eq!(int("0b101"), Some(5));
    assert_eq!(int("-0b101"), Some(-5));
    assert_eq!(int("1_000"), Some(1000));
    assert_eq!(int("+12"), Some(12));
    assert_eq!(int("18446744073709551615"), Some(u64::MAX.into()));
    assert_eq!(int("-9223372036854775808"), Some(i64::MIN.into()));
    assert_eq!(int("18446744073709551616"), None);
    let float = |text: &str| match scalar::resolve(text) {
        Value::Float(value, _) => Some(value),
        _ => None,
    };
    // No octal number, so it is read as a fraction: Go does.
    assert_eq!(float("08"), Some(8.0));
    assert_eq!(float("1e3"), Some(1000.0));
    assert_eq!(float(".5"), Some(0.5));
    assert_eq!(float("1."), Some(1.0));
    assert_eq!(float("-.inf"), Some(f64::NEG_INFINITY));
    for text in [
        "1.2.3",
        "2001-01-01",
        "12:30:45",
        "1e",
        "0x",
        "+",
        "-",
        ".",
        "nan",
        "1Gi",
        "--1",
        "+-1",
        "e3",
        "_1",
        "truE",
    ] {
        assert_eq!(scalar::resolve(text), Value::Str(text.into()), "{text}");
    }
}

#[test]
fn quoted_scalars_are_texts() {
    let documents = good(&container(
        r#"env: [{name: A, value: "1"}, {name: B, value: 'yes'}, {name: C, value: !!str 3}, {name: D, value: "it\'s"}]"#,
    ));
    let spec = documents.pods[0].object.spec.as_ref().unwrap();
    let values: Vec<_> = spec.containers[0]
        .env
        .iter()
        .flatten()
        .map(|e| e.value.clone().unwrap())
        .collect();
    assert_eq!(values, ["1", "yes", "3", "it's"]);
}

#[test]
fn aliases_and_merge_keys() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: &all\n  a: one\n  b: two\n---\n\
                apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\ndata:\n  <<: *all\n";
    // An anchor is the document's own.
    check(
        text,
        "12:7: data: an alias to an anchor that isn't in this document",
    );
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: &n c, labels: &l {app: *n, x: v}, annotations: {<<: *l, x: z}}\n";
    let documents = good(text);
    let metadata = &documents.config_maps[0].object.metadata;
    let annotations = metadata.annotations.as_ref().unwrap();
    assert_eq!(metadata.labels.as_ref().unwrap()["app"], "c");
    assert_eq!(
        (annotations["app"].as_str(), annotations["x"].as_str()),
        ("c", "z")
    );
    check(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, labels: {<<: x}}\n",
        "3:30: metadata.labels: << takes an object, or a list of objects",
    );
}

#[test]
fn block_scalars_and_windows_line_ends() {
    let text = "apiVersion: v1\r\nkind: ConfigMap\r\nmetadata: {name: c}\r\ndata:\r\n  keep: |\r\n    a\r\n     b\r\n  strip: >-\r\n    one\r\n    two\r\n";
    let data = good(text).config_maps[0].object.data.clone().unwrap();
    assert_eq!(data["keep"], "a\n b\n");
    assert_eq!(data["strip"], "one two");
}

#[test]
fn a_block_that_ends_with_the_file() {
    let data = |tail: &str| {
        let text =
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata:\n  a: {tail}");
        let (documents, findings) = parse("f", text.as_bytes());
        assert!(!findings.has_errors(), "{findings}");
        documents.config_maps[0].object.data.clone().unwrap()["a"].clone()
    };
    assert_eq!(data("|\n    x\n    y"), "x\ny");
    assert_eq!(data("|\n    x\n    y\n"), "x\ny\n");
    assert_eq!(data("|-\n    x\n    y\n"), "x\ny");
    assert_eq!(data("|+\n    x\n\n"), "x\n\n");
    assert_eq!(data("|+\n    x"), "x");
    assert_eq!(data(">\n    x\n    y"), "x y");
    assert_eq!(data("|\n    x\n---\n"), "x\n");
    assert_eq!(data("|\n    x\n  b: v"), "x\n");
}

#[test]
fn json_is_yaml() {
    let text = "{\n\t\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\",\n\t\"metadata\": {\"name\": \"c\"},\n\t\"data\": {\"a\": \"\\u00e9\\/\\ud83d\\ude00\", \"b\": 3}\n}\n";
    check(
        text,
        "4:45: data.b: expected a text, found the number 3; quote it: \"3\"",
    );
    let data = good(&text.replace(", \"b\": 3", "")).config_maps[0]
        .object
        .data
        .clone()
        .unwrap();
    assert_eq!(data["a"], "é/😀");
}

#[test]
fn a_list_is_its_items() {
    let text = "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: \"\"}\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: c}\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: d}\n  dat: {}\n";
    check(
        text,
        "11:3: items[1].dat: unknown field; did you mean data?",
    );
    check(
        "apiVersion: v1\nkind: List\nitems: 3\n",
        "3:8: items: expected a list",
    );
    check(
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: List, items: []}\n",
        "4:3: items[0]: a List inside a List",
    );
}

#[test]
fn the_same_key_twice() {
    check(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\n  name: d\n",
        "5:3: metadata.name: the same key as in line 4",
    );
}

#[test]
fn keys_that_yaml_reads_as_something_else() {
    let (documents, findings) = parse(
        "f",
        b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  1: a\n  yes: b\n",
    );
    assert_eq!(
        findings.to_string(),
        "f:6:3: warning: data: the key yes is the boolean true in YAML 1.1; quote it\n"
    );
    let data = documents.config_maps[0].object.data.as_ref().unwrap();
    assert_eq!(data.keys().collect::<Vec<_>>(), ["1", "true"]);
}

#[test]
fn slips_in_the_syntax() {
    check("a:\n\tb: 1\n", "2:2: a: a tab where YAML wants spaces");
    check(
        "a:\n  b: 1\n\tc: 2\n",
        "3:1: a.b: a tab where YAML wants spaces",
    );
    check(
        "spec:\n  y: z\n  image x\n",
        "3:3: spec: expected `key: value`, found \"image x\"",
    );
    check(
        "spec:\n  image x\n  y: z\n",
        "3:4: a second `key: value` inside a value: is the indentation right, are quotes missing, or a colon in the line above?",
    );
    check(
        "a:\n   b: 1\n  c: 2\n",
        "3:3: expected a key here: is the indentation that of the keys above?",
    );
    check(
        "a:\n  b: 'c\n  d'\n",
        "3:3: a.b: a text in quotes goes on in a line that is indented no further than its key: indent it further",
    );
    check(
        r#"a: "\q""#,
        r"1:4: a: a \ in double quotes that escapes nothing: write \\, or use single quotes",
    );
    check(
        "a: *nowhere\n",
        "1:4: a: an alias to an anchor that isn't in this document",
    );
    check(
        "a: &x [*x]\n",
        "1:8: a[0]: the anchor is still open: a value can't hold itself",
    );
    check(
        "a: @x\n",
        "1:4: a: unexpected character: `@': a value that begins so needs quotes",
    );
    check(
        "image: {{ .Values.x }}\n",
        "1:9: image: a key must be a text; a template placeholder like {{ x }} has to be filled in first",
    );
    check(
        "a: !!binary aGk=\n",
        "1:13: a: the tag !!binary has no meaning in JSON; write the base64 text without the tag",
    );
    check(
        "a: !!int x\n",
        "1:10: a: tagged !!int, but it is the text \"x\"",
    );
    check(
        "a: !foo x\n",
        "1:9: a: the tag !foo means nothing in a manifest",
    );
}

#[test]
fn a_slip_hides_nothing_in_the_other_documents() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\ndat: {}\n";
    let found = errors(text);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[1], "8:1: dat: unknown field; did you mean data?");
}

#[test]
fn bombs_are_bounded() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let prior = format!("*a{}, ", i - 1).repeat(9);
        laughs.push_str(&format!("a{i}: &a{i} [{prior}]\n"));
    }
    let found = errors(&laughs);
    assert!(
        found[0].contains("too much: more than 300000 values"),
        "{found:?}"
    );
    assert!(errors(&"[".repeat(200_000))[0].contains("nested deeper than"));
    assert!(errors(&"- ".repeat(200_000))[0].contains("nested deeper than"));
    assert!(errors(&"{a: ".repeat(200_000))[0].contains("nested deeper than"));
    let many = "- x\n".repeat(400_000);
    assert!(errors(&many)[0].contains("too much"));
    let long = format!(
        "a: &a \"{}\"\nb: [{}]\n",
        "x".repeat(1 << 20),
        "*a, ".repeat(100)
    );
    assert!(errors(&long)[0].contains("32 MiB of text"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_loader_never_panics(text in "\\PC{0,200}") {
        let _found = parse("f", text.as_bytes());
    }

    #[test]
    fn the_loader_never_panics_on_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _found = parse("f", &bytes);
    }

    /// Text that is nearly YAML finds more than random text does.
    #[test]
    fn the_loader_never_panics_on_nearly_yaml(
        parts in proptest::collection::vec(
            proptest::sample::select(vec![
                "apiVersion: v1\n", "kind: Pod\n", "metadata: ", "name: p\n", "spec:\n", "  ", "- ", "{", "}", "[", "]",
                ", ", ": ", "\n", "---\n", "&a ", "*a", "<<: ", "!!str ", "\"", "'", "|\n", ">-\n", "\t", "#", "containers:\n",
                "env: ", "0644", "yes", "~", "kind: List\n", "items:\n", "é", "? ", "...\n", "%YAML 1.1\n", "\r",
            ]),
            0..60,
        )
    ) {
        let text = parts.concat();
        let _found = parse("f", text.as_bytes());
    }

    /// A mutilated pod: every cut, every swapped byte.
    #[test]
    fn the_loader_never_panics_on_a_mutilated_pod(cut in 0usize..400, at in 0usize..400, byte in any::<u8>()) {
        let mut bytes = super::valid::FULL.as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(bytes.len() - cut % bytes.len());
        let _found = parse("f", &bytes);
    }
}
