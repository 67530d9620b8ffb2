//! Tests of the check: what it finds across containers, and how it is shown.

use podkit_foundation::surface::{ConfigFile, Group, ModuleSpec, Need, NeedKind, Port};

use super::{Commands, Report, Wrapper, judge};
use crate::manifest::{Severity, parse};
use crate::plan::Options;

podkit_foundation::params! {
    /// What the fake module takes.
    pub(super) struct Params {
        /// Where it listens.
        listen: podkit_foundation::params::Addr { default: Some(":8443") },
        /// What it does.
        mode: String { default: Some("fast") },
        /// What it must be told.
        upstream: String {},
    }
}

const fn spec(name: &'static str, admin_port: u16, needs: &'static [Need]) -> ModuleSpec {
    ModuleSpec {
        name,
        group: Group::Sidecars,
        summary: "",
        about: "",
        admin_port,
        data_path: false,
        config: None,
        params: &[Params::PARAMS],
        ports: &[Port {
            param: "listen",
            port: Some(8443),
            protocol: "HTTPS",
            doc: "",
        }],
        endpoints: &[],
        files: &[],
        needs,
        metrics: &[],
    }
}

use podkit_foundation::params::ParamSet as _;

static TLS: ModuleSpec = spec("tls", 9601, &[]);
static TOPZ: ModuleSpec = spec(
    "topz",
    9604,
    &[
        Need {
            feature: "the processes of other containers",
            doc: "a shared PID namespace",
            kind: NeedKind::SharedPid,
        },
        Need {
            feature: "open files",
            doc: "ptrace",
            kind: NeedKind::SameUserOr("SYS_PTRACE"),
        },
    ],
);

static OWN: ModuleSpec = spec(
    "own",
    9605,
    &[
        Need {
            feature: "--mode other than one's own",
            doc: "CAP_CHOWN",
            kind: NeedKind::Capability("CHOWN"),
        },
        Need {
            feature: "--upstream signal:NAME",
            doc: "a shared PID namespace",
            kind: NeedKind::SharedPid,
        },
    ],
);

static CHAIN: ModuleSpec = ModuleSpec {
    config: Some(ConfigFile {
        param: "upstream",
        schema: || serde_json::Value::Null,
    }),
    ..spec("chain", 9641, &[])
};

podkit_foundation::params! {
    /// What the fake wrapper takes.
    pub(super) struct Around {
        /// How many.
        most: u32 { default: Some("4"), bounds: Some((1, 9)) },
        /// Which.
        allow_uid: Vec<u32> {},
    }
}

static WRAPPERS: &[Wrapper] = &[Wrapper {
    name: "agent",
    params: Around::PARAMS,
    check: |values| Around::from_values(values).map(drop),
}];

fn report(text: &str) -> Report {
    let (documents, findings) = parse("f", text.as_bytes());
    let commands = Commands {
        modules: &[&TLS, &TOPZ, &OWN, &CHAIN],
        others: &["install", "agent"],
        wrappers: WRAPPERS,
    };
    judge(&documents, findings, &Options::default(), commands)
}

/// A pod of containers, one a line.
fn pod(containers: &[&str], spec: &str) -> String {
    let list: String = containers
        .iter()
        .map(|line| format!("  - {{image: podkit:0.1.0, {line}}}\n"))
        .collect();
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers:\n{list}{spec}")
}

fn found(text: &str) -> Vec<String> {
    let report = report(text);
    let all = report
        .findings
        .iter()
        .filter(|f| f.severity != Severity::Ignored);
    all.map(|finding| finding.to_string().trim_start_matches("f:").to_owned())
        .collect()
}

#[test]
fn two_of_one_kind_share_an_admin_port() {
    let both = [
        "name: a, args: [tls, --upstream, x]",
        "name: b, args: [tls, --upstream=x, --listen, ':1']",
    ];
    assert_eq!(
        found(&pod(&both, "")),
        [
            "7:5: spec.containers[1]: the admin port 9601 is that of container \"a\" too, and a pod has one network: set PODKIT_ADMIN to another"
        ]
    );
    let flag = [
        both[0],
        "name: b, args: [tls, --upstream=x, --listen, ':1', --admin, ':2']",
    ];
    assert!(found(&pod(&flag, "")).is_empty());
    let variable = [
        both[0],
        "name: b, args: [tls, --upstream=x, --listen, ':1'], env: [{name: PODKIT_ADMIN, value: ':2'}]",
    ];
    assert!(found(&pod(&variable, "")).is_empty());
    // The same port to listen on can't be bound either.
    let listen = [both[0], "name: b, args: [tls, --upstream=x, --admin, ':2']"];
    assert!(
        found(&pod(&listen, ""))[0]
            .ends_with("port 8443 is taken by container \"a\" already, and a pod has one network")
    );
}

#[test]
fn a_module_may_serve_two_things_on_one_port() {
    let own =
        "name: a, args: [tls, --upstream, x, --listen, ':9601'], ports: [{containerPort: 9601}]";
    assert!(found(&pod(&[own], "")).is_empty());
    // Against another container it is one clash, not two.
    let both = [
        own,
        "name: b, args: [tls, --upstream, x, --listen, ':9601']",
    ];
    let lines = found(&pod(&both, ""));
    assert_eq!(lines.len(), 1, "{lines:?}");
}

#[test]
fn a_file_may_be_given_without_its_flag() {
    for args in [
        "[chain, /etc/chain.yaml]",
        "[chain, --mode, slow, /etc/chain.yaml]",
        "[chain, --upstream=x]",
    ] {
        let lines = found(&pod(&[&format!("name: a, args: {args}")], ""));
        assert_eq!(lines, Vec::<String>::new(), "{args}");
    }
    let lines = found(&pod(&["name: a, args: [chain, --mode, slow]"], ""));
    assert!(lines[0].contains("chain needs --upstream"), "{lines:?}");
}

#[test]
fn command_lines() {
    let only = |container: &str| found(&pod(&[container], "")).join("\n");
    assert_eq!(
        only("name: a, args: [tsl]"),
        "6:43: spec.containers[0].args[0]: podkit has no module \"tsl\"; did you mean tls?"
    );
    assert_eq!(
        only("name: a, args: [tls, --upstream, x, --lisen, ':1']"),
        "6:63: spec.containers[0].args[3]: tls has no flag --lisen; did you mean --listen?"
    );
    assert_eq!(
        only("name: a, args: [tls]"),
        "6:5: spec.containers[0]: tls needs --upstream or PODKIT_UPSTREAM"
    );
    assert!(
        only("name: a, args: [tls, --upstream, x], env: [{name: PODKIT_LISEN, value: ':1'}]")
            .contains("did you mean PODKIT_LISTEN?")
    );
    assert_eq!(only("name: a, args: [install, /x]"), "");
    assert_eq!(only("name: a, command: [/podkit, tsl]"), "");
    assert!(only("name: a, args: [tls, --upstream, x, --log-level, loud]").contains("is none of"));
}

#[test]
fn what_runs_an_application() {
    let check = |container: &str, expected: &[&str]| {
        assert_eq!(found(&pod(&[container], "")), expected, "{container}");
    };
    let podkit = "command: [/tools/podkit, agent";
    check(&format!("name: a, {podkit}, --most=3, --, nginx]"), &[]);
    check(
        &format!("name: a, {podkit}, --most, '3'], args: [--allow-uid=1, --, nginx, --most=0]"),
        &[],
    );
    check("name: a, args: [agent, --, nginx]", &[]);
    check(&format!("name: a, {podkit}, --help]"), &[]);
    check("name: a, command: [sh, agent]", &[]);
    check(
        &format!(
            "name: a, {podkit}, --mots=3], args: [--most=10, --allow-uid, x, --allow-uid, z, --, b]"
        ),
        &[
            "6:68: spec.containers[0].command[2]: agent has no flag --mots; did you mean --most?",
            "6:86: spec.containers[0].args[0]: --most of agent: \"10\" is not right (out of range); expected a whole number from 1 to 9",
            "6:97: spec.containers[0].args[1]: --allow-uid of agent: \"x\" is not right; expected a whole number",
            "6:113: spec.containers[0].args[3]: --allow-uid of agent: \"z\" is not right; expected a whole number",
        ],
    );
    let missing =
        "6:5: spec.containers[0]: agent needs the application and its arguments behind --";
    check(&format!("name: a, {podkit}]"), &[missing]);
    check(&format!("name: a, {podkit}, --most=3, --]"), &[missing]);
    check(
        "name: a, args: [agent, nginx]",
        &[
            "6:50: spec.containers[0].args[1]: agent takes no \"nginx\" here; the application follows --",
        ],
    );
    check(
        &format!(
            "name: a, {podkit}, --, nginx], env: [{{name: PODKIT_MOST, value: '0'}}, {{name: PODKIT_MOTS, value: '1'}}]"
        ),
        &[
            "6:80: spec.containers[0].env: --most of agent: \"0\" is not right (out of range); expected a whole number from 1 to 9",
            "6:80: warning: spec.containers[0].env: agent has no parameter PODKIT_MOTS; did you mean PODKIT_MOST?",
        ],
    );
}

#[test]
fn ports_declared_twice_and_probes_of_nothing() {
    let text = pod(
        &[
            "name: a, args: [tls, --upstream, x], ports: [{containerPort: 8443}]",
            "name: b, command: [x], ports: [{containerPort: 8443}], readinessProbe: {tcpSocket: {port: 81}}",
            "name: c, command: [x], livenessProbe: {httpGet: {port: 9601}}, startupProbe: {tcpSocket: {port: 5, host: example.org}}",
        ],
        "",
    );
    assert_eq!(
        found(&text),
        [
            "7:74: warning: spec.containers[1].ports[0].containerPort: port 8443 is taken by container \"a\" already, and a pod has one network",
            "7:117: warning: spec.containers[1].readinessProbe.tcpSocket.port: no container declares port 81",
        ]
    );
}

#[test]
fn needs() {
    let text = pod(
        &[
            "name: a, args: [topz, --upstream, x], securityContext: {runAsUser: 7}",
            "name: b, command: [x]",
        ],
        "",
    );
    let lines = found(&text);
    assert!(
        lines[0].contains("set shareProcessNamespace: true"),
        "{lines:?}"
    );
    assert!(
        lines[1].contains("add the capability SYS_PTRACE"),
        "{lines:?}"
    );
    let text = pod(
        &[
            "name: a, args: [topz, --upstream, x]",
            "name: b, command: [x]",
        ],
        "  shareProcessNamespace: true\n",
    );
    assert!(found(&text).is_empty());
    // What only a flag needs is not needed without it.
    let given = |args: &str| {
        found(&pod(
            &[&format!(
                "name: a, args: [own{args}], securityContext: {{runAsUser: 7}}"
            )],
            "",
        ))
        .join("\n")
    };
    assert_eq!(given(", --upstream, x"), "");
    assert!(given(", --upstream, x, --mode, slow").contains("add the capability CHOWN"));
    assert!(given(", --upstream, 'signal:x'").contains("set shareProcessNamespace: true"));
    assert_eq!(given(", --upstream, signals"), "");
}

#[test]
fn images_without_a_version() {
    let text = pod(&["name: a, command: [x]"], "").replace("podkit:0.1.0", "podkit");
    assert!(
        found(&text)[0]
            .starts_with("6:13: warning: spec.containers[0].image: \"podkit\" names no version")
    );
    let volumes =
        |image: &str| format!("  volumes: [{{name: v, image: {{reference: {image}}}}}]\n");
    let text = pod(&["name: a, command: [x]"], &volumes("data"));
    assert!(
        found(&text)[0]
            .contains("warning: spec.volumes[0].image.reference: \"data\" names no version")
    );
    assert!(found(&pod(&["name: a, command: [x]"], &volumes("\"data:1\""))).is_empty());
}

#[test]
fn shown_as_text_and_json() {
    let text = pod(
        &["name: app, command: [/podkit, echo]"],
        "  nodeName: x\n  initContainers:\n  - {name: tls, image: podkit:0.1.0, restartPolicy: Always, args: [tls, --upstream, ':1']}\n",
    );
    let fine = report(&text);
    assert_eq!(
        fine.to_string(),
        "f:7:3: ignored: spec.nodeName: this machine is the node\n\
         pod p (namespace default)\n  sidecar  tls  podkit tls\n  main     app  /podkit echo\n\
         1 pod, 2 containers; no errors, no risks, no warnings, 1 ignored field\n"
    );
    let json = fine.to_json();
    assert_eq!(json["ok"], true);
    assert_eq!(json["pods"][0]["containers"][0]["program"], "podkit tls");
    assert_eq!(json["findings"][0]["line"], 7);
    let broken = report(&text.replace("nodeName", "nodeNam"));
    assert_eq!(
        broken.to_string(),
        "f:7:3: spec.nodeNam: unknown field; did you mean nodeName?\n1 error, no risks, no warnings, no ignored fields: can't run\n"
    );
    assert_eq!(broken.to_json()["errors"], 1);
}
