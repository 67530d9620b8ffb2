use super::*;
use crate::metrics::source::{shown, words};

const ANSWER: &str = r#"[{"request":{"mbean":"*:*","type":"read"},"status":200,"value":{
  "org.cassandra.db:type=StorageProxy,scope=\"a b\"":{"HintsInProgress":0,"On":true,"Name":"x","Recent":{"min":1.5,"max":{"x":2}},"List":[1]},
  "java.lang:type=Memory":{"HeapMemoryUsage":{"used":5},"Ratio":"NaN"}}},
  {"request":{"mbean":"java.lang:type=Memory"},"status":200,"value":{"HeapMemoryUsage":{"used":5,"max":10},"ObjectPendingFinalizationCount":0}},
  {"request":{"mbean":"java.lang:type=MemoryPool,*"},"status":200,"value":{"java.lang:type=MemoryPool,name=Eden Space":{"Usage":{"used":7},"CollectionUsage":null}}},
  {"request":{"mbean":"java.lang:type=GarbageCollector,*"},"status":200,"value":{"java.lang:name=G1,type=GarbageCollector":{"CollectionCount":3,"CollectionTime":1500}}},
  {"request":{"mbean":"java.lang:type=Threading"},"status":200,"value":{"ThreadCount":12}},
  {"status":404},{"status":404},{"status":404},{"status":404},{"status":404}]"#;

fn config(text: &str) -> Config {
    words::parse("rules", "f", text, |words| rules::read(words, true)).unwrap()
}

fn check(config: &Config, expected: &str) {
    let batch = read(ANSWER.as_bytes(), &Names::new(), config, true).unwrap();
    let text = shown(&batch);
    let ours: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("jvm_"))
        .collect();
    assert_eq!(ours.join("\n"), expected.trim());
}

#[test]
fn without_rules_names_are_those_of_jmx_exporter_and_jvm_has_its_own() {
    check(
        &Config::default(),
        r#"
java_lang_Memory_HeapMemoryUsage_used untyped 5
java_lang_Memory_Ratio untyped NaN
org_cassandra_db_StorageProxy_HintsInProgress{scope="a b"} untyped 0
org_cassandra_db_StorageProxy_On{scope="a b"} untyped 1
org_cassandra_db_StorageProxy_Recent_max_x{scope="a b"} untyped 2
org_cassandra_db_StorageProxy_Recent_min{scope="a b"} untyped 1.5"#,
    );
    let batch = read(ANSWER.as_bytes(), &Names::new(), &Config::default(), false).unwrap();
    let text = shown(&batch);
    for line in [
        "jvm_memory_used_bytes{area=\"heap\"} gauge 5",
        "jvm_memory_max_bytes{area=\"heap\"} gauge 10",
        "jvm_memory_pool_used_bytes{pool=\"Eden Space\"} gauge 7",
        "jvm_gc_collection_seconds_count{gc=\"G1\"} summary 3",
        "jvm_gc_collection_seconds_sum{gc=\"G1\"} summary 1.5",
        "jvm_threads_current gauge 12",
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
    }
}

#[test]
fn rules_are_those_of_jmx_exporter() {
    check(
        &config(
            "lowercaseOutputName: true\nlowercaseOutputLabelNames: true\nrules:\n\
             - {pattern: 'org.cassandra.db<type=(\\w+), scope=\"(.*)\"><>(Hints)InProgress: (\\d+)', name: 'cassandra_$1_$3total', value: $4, valueFactor: 0.001, help: 'of $1', type: COUNTER, labels: {Scope: $2, $3: x}}\n\
             - {pattern: '<>Name: (.)', name: named, value: 3, labels: {name: $1}}\n\
             - {pattern: '<(\\w+)>(min)', name: 'Recent--$2'}\n\
             - {pattern: '<HeapMemoryUsage>used', attrNameSnakeCase: true}\n",
        ),
        r#"
java_lang_memory_heapmemoryusage_used untyped 5
cassandra_storageproxy_hintstotal{scope="a b",hints="x"} counter 0
named{name="x"} untyped 3
recent_min untyped 1.5"#,
    );
    check(
        &config("excludeObjectNames: ['org.*:*', 'java.lang:type=Memory']"),
        "",
    );
    check(&config("rules: []"), "");
}

#[test]
fn what_is_wrong_is_told() {
    let check = |text: &str, why: &str| {
        let read = words::parse("rules", "f", text, |words| rules::read(words, true));
        let error = read.unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    };
    check("rule: []", "did you mean rules?");
    check("includeObjectNames: [a]", "is no name of MBeans");
    check("rules: [{pattern: '('}]", "is not a regular expression");
    check("rules: [{labels: {a: b}}]", "want a name beside them");
    check(
        "rules: [{name: a, labels: {source: b}}]",
        "the source's name has",
    );
    check(
        "rules: [{name: a, type: gauge}]",
        "is not one of GAUGE, COUNTER, UNTYPED",
    );
    check("rules: [{valueFactor: x}]", "is no number");
    check("lowercaseOutputName: 1", "expected true or false");
    let asked = question(&Config::default());
    let asked: Value = serde_json::from_slice(&asked).unwrap();
    assert_eq!(asked.as_array().unwrap().len(), 1 + jvm::BEANS.len());
    let why = |answer: &str| {
        read(answer.as_bytes(), &Names::new(), &Config::default(), true).unwrap_err()
    };
    assert!(why("[]").contains("another number of questions"));
    let refused = ANSWER.replacen("\"status\":200", "\"status\":403,\"error\":\"no\"", 1);
    assert_eq!(why(&refused), "refused to read \"*:*\": no");
}

#[test]
fn properties_are_in_the_order_in_which_they_were_given() {
    let said = r#"[{"value":{"agent":"1.7.1"}},{"value":["org.cassandra.db:scope=\"a b\",type=StorageProxy"],"status":200}]"#;
    let names = names(said.as_bytes()).unwrap();
    let batch = read(ANSWER.as_bytes(), &names, &Config::default(), false).unwrap();
    let line = "org_cassandra_db__a_b_HintsInProgress{type=\"StorageProxy\"} untyped 0\n"
        .replace("__", "_");
    assert!(shown(&batch).contains(&line), "{}", shown(&batch));
    assert!(super::names(b"<html>").is_none());
}
