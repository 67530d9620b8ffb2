//! Jobs: their numbers, and the pods that they make.

use std::time::Duration;

use super::facts;
use crate::manifest::{Findings, parse};
use crate::plan::{JobPlan, Options, RestartPolicy, build, jobs};

fn job(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: pi, namespace: math}}\nspec:\n{lines}  template:\n    metadata: {{labels: {{app: pi}}}}\n    \
         spec:\n      restartPolicy: Never\n      containers:\n      - name: pi\n        image: perl:5.34\n        command: [perl]\n        \
         env: [{{name: ME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]\n"
    )
}

fn planned(text: &str) -> (Vec<JobPlan>, Findings) {
    let (documents, findings) = parse("f", text.as_bytes());
    assert!(!findings.has_errors(), "{findings}\n{text}");
    let (_, findings) = build(&documents, &Options::default(), &facts());
    assert!(!findings.has_errors(), "{findings}");
    jobs(&documents, &Options::default(), &facts())
}

#[track_caller]
fn one(lines: &str) -> JobPlan {
    let (mut plans, findings) = planned(&job(lines));
    assert!(!findings.has_errors(), "{findings}");
    plans.remove(0)
}

#[test]
fn numbers() {
    let plain = one("");
    assert_eq!(
        (plain.completions, plain.parallelism, plain.backoff_limit),
        (Some(1), 1, 6)
    );
    assert_eq!(
        (plain.name.as_str(), plain.namespace.as_str()),
        ("pi", "math")
    );
    assert_eq!(plain.pod.restart_policy, RestartPolicy::Never);
    assert_eq!(plain.pod.labels["job-name"], "pi");
    assert_eq!(plain.pod.labels["app"], "pi");
    let full = one("completions: 5\nparallelism: 2\nbackoffLimit: 0\nactiveDeadlineSeconds: 100");
    assert_eq!(
        (full.completions, full.parallelism, full.backoff_limit),
        (Some(5), 2, 0)
    );
    assert_eq!(full.active_deadline, Some(Duration::from_secs(100)));
    assert_eq!([0, 3, 4, 5].map(|n| full.wanted(n)), [2, 2, 1, 0]);
    let queue = one("parallelism: 3");
    assert_eq!(queue.completions, None);
    assert_eq!([0, 1].map(|n| queue.wanted(n)), [3, 0]);
}

#[test]
fn pods_by_name() {
    let (documents, _) = parse("f", job("").as_bytes());
    let plan = one("");
    let options = Options {
        job_pods: vec![plan.pod(None, "k2x9z")],
        ..Options::default()
    };
    let (pods, findings) = build(&documents, &options, &facts());
    assert!(!findings.has_errors(), "{findings}");
    assert_eq!(pods[0].name, "pi-k2x9z");
    assert_eq!(pods[0].namespace, "math");
    assert_eq!(
        pods[0].containers[0].env,
        [("ME".to_owned(), "pi-k2x9z".to_owned())]
    );
}

#[test]
fn an_indexed_job_tells_each_pod_its_index() {
    let text = job("completions: 3\ncompletionMode: Indexed");
    let (documents, _) = parse("f", text.as_bytes());
    let (plans, _) = planned(&text);
    assert!(plans[0].indexed);
    let options = Options {
        job_pods: vec![plans[0].pod(Some(2), "aaaaa")],
        ..Options::default()
    };
    let (pods, findings) = build(&documents, &options, &facts());
    assert!(!findings.has_errors(), "{findings}");
    let pod = &pods[0];
    assert_eq!(
        (pod.name.as_str(), pod.hostname.as_str()),
        ("pi-2-aaaaa", "pi-2")
    );
    assert_eq!(
        pod.annotations["batch.kubernetes.io/job-completion-index"],
        "2"
    );
    let env = &pod.containers[0].env;
    assert!(
        env.contains(&("JOB_COMPLETION_INDEX".to_owned(), "2".to_owned())),
        "{env:?}"
    );
}

#[test]
fn what_is_wrong_with_a_template_has_its_line() {
    let wrong = |text: &str| {
        let (_, findings) = parse("f", text.as_bytes());
        findings.to_string()
    };
    assert_eq!(
        wrong(&job("").replace("restartPolicy: Never", "restartPolicy: Always")),
        "f:8:22: spec.template.spec.restartPolicy: the pods of a Job take OnFailure or Never\n"
    );
    assert_eq!(
        wrong(&job("").replace("image: perl:5.34", "image: ''")),
        "f:11:16: spec.template.spec.containers[0].image: a container needs an image\n"
    );
    assert!(
        wrong(&job("completionMode: Indexed"))
            .contains("must be specified when completion mode is Indexed")
    );
    assert!(wrong(&job("suspend: true")).contains("spec.suspend: refused: a suspended Job"));
    assert!(
        wrong(&job("podFailurePolicy: {rules: []}")).contains("spec.podFailurePolicy: refused: ")
    );
    let broken = job("").replace("fieldPath: metadata.name", "fieldPath: metadata.nme");
    let (_, findings) = planned(&broken);
    assert_eq!(
        findings.to_string(),
        "f:13:60: spec.template.spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: \"metadata.nme\" can't be a variable; did you mean metadata.name?\n"
    );
}
