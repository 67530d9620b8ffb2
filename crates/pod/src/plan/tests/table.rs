//! Every field of PodSpec and Container, set once: the plan differs, or a finding names the field. And what no one thought of: objects
//! of every shape that the types allow, which are planned or refused by a field's name, and never crash.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::facts;
use crate::manifest::{Findings, Severity, parse, schema_types};
use crate::plan::{Options, PodPlan, build, jobs};

/// What setting a field comes to.
enum Comes {
    /// The plan is another.
    Plan(Value),
    /// Nothing; but a wrong value is an error of this field.
    Checked(Value),
    /// An ignored field.
    Ignored(Value),
    /// An error.
    Refused(Value),
}
use Comes::{Checked, Ignored, Plan, Refused};

fn pod_spec() -> Vec<(&'static str, Comes)> {
    let one = || json!([{"name": "x", "image": "i", "command": ["x"]}]);
    vec![
        ("activeDeadlineSeconds", Plan(json!(5))),
        ("affinity", Ignored(json!({"nodeAffinity": {}}))),
        ("automountServiceAccountToken", Ignored(json!(true))),
        ("containers", Plan(one())),
        ("dnsConfig", Plan(json!({"searches": ["a"]}))),
        ("dnsPolicy", Checked(json!("No"))),
        ("enableServiceLinks", Ignored(json!(true))),
        ("ephemeralContainers", Refused(json!([{"name": "d"}]))),
        ("evictionResponders", Ignored(json!([]))),
        (
            "hostAliases",
            Plan(json!([{"ip": "1.1.1.1", "hostnames": ["a"]}])),
        ),
        ("hostIPC", Plan(json!(true))),
        ("hostNetwork", Plan(json!(true))),
        ("hostPID", Plan(json!(true))),
        ("hostUsers", Refused(json!(false))),
        ("hostname", Plan(json!("h"))),
        ("hostnameOverride", Plan(json!("h"))),
        ("imagePullSecrets", Plan(json!([{"name": "reg"}]))),
        ("initContainers", Plan(one())),
        ("nodeName", Ignored(json!("n"))),
        ("nodeSelector", Ignored(json!({"a": "b"}))),
        ("os", Checked(json!({"name": "windows"}))),
        ("overhead", Ignored(json!({"cpu": "1"}))),
        ("preemptionPolicy", Ignored(json!("Never"))),
        ("priority", Ignored(json!(1))),
        ("priorityClassName", Ignored(json!("p"))),
        ("readinessGates", Refused(json!([{"conditionType": "a"}]))),
        ("resourceClaims", Refused(json!([{"name": "a"}]))),
        ("resources", Plan(json!({"limits": {"cpu": 1}}))),
        ("restartPolicy", Plan(json!("Never"))),
        ("runtimeClassName", Refused(json!("kata"))),
        ("schedulerName", Ignored(json!("s"))),
        ("schedulingGates", Refused(json!([{"name": "g"}]))),
        ("schedulingGroup", Ignored(json!({}))),
        ("securityContext", Plan(json!({"fsGroup": 1}))),
        ("serviceAccount", Ignored(json!("s"))),
        ("serviceAccountName", Ignored(json!("s"))),
        ("setHostnameAsFQDN", Plan(json!(true))),
        ("shareProcessNamespace", Plan(json!(true))),
        ("subdomain", Plan(json!("s"))),
        ("terminationGracePeriodSeconds", Plan(json!(1))),
        ("tolerations", Ignored(json!([{"key": "a"}]))),
        ("topologySpreadConstraints", Ignored(json!([]))),
        ("volumes", Plan(json!([{"name": "v"}, {"name": "w"}]))),
    ]
}

fn container() -> Vec<(&'static str, Comes)> {
    let probe = || json!({"tcpSocket": {"port": 1}});
    vec![
        ("args", Plan(json!(["a"]))),
        ("command", Plan(json!(["a"]))),
        ("env", Plan(json!([{"name": "A", "value": "b"}]))),
        ("envFrom", Plan(json!([{"secretRef": {"name": "reg"}}]))),
        ("image", Plan(json!("other:1"))),
        ("imagePullPolicy", Plan(json!("Never"))),
        (
            "lifecycle",
            Plan(json!({"preStop": {"sleep": {"seconds": 1}}})),
        ),
        ("livenessProbe", Plan(probe())),
        ("name", Plan(json!("other"))),
        ("ports", Plan(json!([{"containerPort": 1}]))),
        ("readinessProbe", Plan(probe())),
        (
            "resizePolicy",
            Ignored(json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"}])),
        ),
        ("resources", Plan(json!({"limits": {"cpu": 1}}))),
        ("restartPolicy", Plan(json!("Never"))),
        ("restartPolicyRules", Checked(json!([{"action": "Stop"}]))),
        ("securityContext", Plan(json!({"privileged": true}))),
        ("startupProbe", Plan(probe())),
        ("stdin", Plan(json!(true))),
        ("stdinOnce", Plan(json!(true))),
        ("terminationMessagePath", Plan(json!("/m"))),
        (
            "terminationMessagePolicy",
            Plan(json!("FallbackToLogsOnError")),
        ),
        ("tty", Plan(json!(true))),
        (
            "volumeDevices",
            Refused(json!([{"name": "v", "devicePath": "/d"}])),
        ),
        (
            "volumeMounts",
            Plan(json!([{"name": "v", "mountPath": "/m"}])),
        ),
        ("workingDir", Plan(json!("/w"))),
    ]
}

/// The plan of one pod whose spec has `field` (of its container, when `inner`) set so.
fn set(inner: bool, field: &str, value: Option<&Value>) -> (Option<PodPlan>, Findings) {
    let mut spec = json!({
        "containers": [{"name": "app", "image": "i:1", "command": ["x"]}],
        "volumes": [{"name": "v"}],
    });
    let at = if inner {
        &mut spec["containers"][0]
    } else {
        &mut spec
    };
    if let Some(value) = value {
        at[field] = value.clone();
    }
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "reg"},
        "stringData": {".dockerconfigjson": "{}"},
    });
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec});
    let text = format!("{pod}\n---\n{secret}\n");
    let (mut plans, findings) = planned(&text);
    let plan = plans.pop().map(|mut plan| {
        // It has every field as it was written.
        plan.spec = Value::Null;
        plan
    });
    (plan, findings)
}

fn planned(text: &str) -> (Vec<PodPlan>, Findings) {
    let (documents, mut findings) = parse("f", text.as_bytes());
    let options = Options {
        allow_privileged: true,
        ..Options::default()
    };
    let (plans, more) = build(&documents, &options, &facts());
    findings.extend(more);
    findings.extend(jobs(&documents, &options, &facts()).1);
    (plans, findings)
}

fn check(kind: &str, inner: bool, cases: Vec<(&'static str, Comes)>) {
    let (plain, findings) = set(inner, "", None);
    assert!(!findings.has_errors(), "{findings}");
    let named: BTreeSet<&str> = cases.iter().map(|(field, _)| *field).collect();
    let all: BTreeSet<&str> = schema_types()[kind]
        .iter()
        .map(|(field, _)| *field)
        .collect();
    assert_eq!(named, all, "{kind}");
    for (field, comes) in cases {
        let (Plan(value) | Checked(value) | Ignored(value) | Refused(value)) = &comes;
        let (plan, findings) = set(inner, field, Some(value));
        let path = if inner {
            format!("spec.containers[0].{field}")
        } else {
            format!("spec.{field}")
        };
        let names = |severity| {
            let mut of = findings
                .iter()
                .filter(|finding| finding.severity == severity);
            of.any(|finding| finding.path.starts_with(&path))
        };
        match comes {
            Plan(_) => {
                assert!(!findings.has_errors(), "{field}: {findings}");
                assert_ne!(plan, plain, "{field} makes no difference");
            }
            Checked(_) | Refused(_) => assert!(names(Severity::Error), "{field}: {findings}"),
            Ignored(_) => {
                assert!(!findings.has_errors(), "{field}: {findings}");
                assert!(names(Severity::Ignored), "{field}: {findings}");
                assert_eq!(plan, plain, "{field} is ignored, and makes a difference");
            }
        }
    }
}

#[test]
fn every_field_of_a_pod_spec() {
    check("PodSpec", false, pod_spec());
}

#[test]
fn every_field_of_a_container() {
    check("Container", true, container());
}

/// Numbers, one after the other, from a seed. (splitmix64)
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % most as u64).unwrap()
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

const TEXTS: &[&str] = &[
    "",
    "a",
    "app",
    "x-1",
    "/a",
    "/a/../b",
    "a/b",
    "..",
    "$(A)",
    "$(",
    "1Gi",
    "-1",
    "0.5",
    "10.0.0.1",
    "::1",
    "Always",
    "Never",
    "IfNotPresent",
    "None",
    "Memory",
    "TCP",
    "UDP",
    "HTTPS",
    "RuntimeDefault",
    "Localhost",
    "Bidirectional",
    "In",
    "Restart",
    "ALL",
    "metadata.name",
    "metadata.labels['a']",
    "limits.cpu",
    "net.ipv4.tcp_syncookies",
    "SIGTERM",
    "Directory",
    "linux",
    "é\u{0}",
    "A B",
    "i:1",
    "ReadWriteOnce",
    "Indexed",
];
const NUMBERS: &[i64] = &[
    0,
    1,
    -1,
    80,
    420,
    511,
    512,
    65535,
    65536,
    2_147_483_647,
    -2_147_483_648,
];

type Types = BTreeMap<&'static str, Vec<(&'static str, String)>>;

/// A value that the type takes; the deeper, the less of it.
fn value(of: &str, types: &Types, depth: usize, chance: &mut Chance) -> Value {
    if let Some(item) = of.strip_prefix("[]") {
        let many = chance.below(3);
        return (0..many)
            .map(|_| value(item, types, depth + 1, chance))
            .collect();
    }
    if let Some(item) = of.strip_prefix("map[string]") {
        let keys = [
            "a",
            "cpu",
            "memory",
            "storage",
            "app",
            "a/b",
            "k.v",
            ".dockerconfigjson",
        ];
        let many = chance.below(3);
        let map: Map<String, Value> = (0..many)
            .map(|_| {
                (
                    chance.of(&keys).to_owned(),
                    value(item, types, depth + 1, chance),
                )
            })
            .collect();
        return map.into();
    }
    match of {
        "boolean" => (chance.below(2) == 0).into(),
        "integer" => chance.of(NUMBERS).into(),
        "integer or string" | "IntOrString" if chance.below(2) == 0 => chance.of(NUMBERS).into(),
        "Quantity" => chance
            .of(&["1", "500m", "1Gi", "-1", "1e3", "x", "0"])
            .into(),
        "Time" | "MicroTime" => "2026-01-02T03:04:05Z".into(),
        _ => match types.get(of) {
            Some(fields) => {
                let odds = 2 + 2 * depth;
                let mut map = Map::new();
                for (field, of) in fields {
                    let needed = matches!(
                        *field,
                        "name" | "image" | "containers" | "spec" | "template" | "metadata"
                    );
                    if (needed && depth < 8) || chance.below(odds) == 0 {
                        map.insert((*field).to_owned(), value(of, types, depth + 1, chance));
                    }
                }
                map.into()
            }
            None => chance.of(TEXTS).into(),
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_the_types_allow_is_planned_or_refused_by_name(seed in any::<u64>()) {
        let types = schema_types();
        let mut chance = Chance(seed);
        let mut text = String::new();
        for (kind, version) in [("Pod", "v1"), ("Job", "batch/v1"), ("ConfigMap", "v1"), ("Secret", "v1"), ("PersistentVolumeClaim", "v1")] {
            let mut object = value(kind, &types, 0, &mut chance);
            object["apiVersion"] = version.into();
            object["kind"] = kind.into();
            if chance.below(4) > 0 {
                object["metadata"] = json!({"name": "a"});
            }
            text += &format!("{object}\n---\n");
        }
        let (_, findings) = planned(&text);
        for finding in findings.iter() {
            // Where nothing could be planned the file as a whole is meant.
            prop_assert!(!finding.path.is_empty() || finding.place.line == 0, "{}\n{}", finding, text);
            prop_assert!(!finding.message.contains('\n'), "{}", finding);
        }
    }
}
