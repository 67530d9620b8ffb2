//! What defines a pod that runs: its files, read again after they have changed.
//!
//! Two ways to take an edit:
//! - *live*, always: the pod keeps its spec, as one on Kubernetes does, and takes what the API server lets change and the kubelet brings
//!   to a running pod: the contents of ConfigMaps and Secrets, and the pod's labels and annotations. One that is `immutable` is not
//!   followed, and one that is gone while the pod needs it stays as it was;
//! - *followed*, with `--watch`: the edited spec is the pod's, when all that `check` says of the files is good.
//!
//! A file that can't be read or has an error in it changes nothing in either.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::manifest::{self, Documents, Findings, Object, Severity, namespace_of};
use crate::plan::{self, Facts, Options, PodPlan};

/// What a file may hold that is compared; more is refused by its reader.
type Sum = u64;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Definition {
    files: Vec<PathBuf>,
    options: Options,
    facts: Facts,
    namespace: String,
    name: String,
    /// `--watch`.
    follow: bool,
    sum: Sum,
    pod: Object<Pod>,
    /// What is in force of the objects that the pod may refer to.
    documents: Documents,
}

/// What an edit means to the pod.
#[derive(Debug)]
pub(super) enum Reread {
    /// The files are as they were.
    Same,
    /// The pod is in them no more.
    Gone,
    /// They can't be taken over: one line for each reason.
    Refused(Vec<String>),
    /// This is the pod now, and what is to be said of that.
    Now {
        plan: Box<PodPlan>,
        remarks: Vec<Remark>,
    },
}

/// Something about an edit that was taken over only in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remark {
    /// Of the event.
    pub(super) reason: &'static str,
    /// One line.
    pub(super) message: String,
}

/// A digest of the files' contents, to know whether they are others; what can't be read is one content more.
pub(super) fn sum(files: &[PathBuf]) -> Sum {
    let mut hasher = DefaultHasher::new();
    for file in files {
        match std::fs::read(file) {
            Ok(bytes) => bytes.hash(&mut hasher),
            Err(error) => error.to_string().hash(&mut hasher),
        }
    }
    hasher.finish()
}

/// Whether all of them can be read again: neither standard input nor a pipe of the shell's.
pub(super) fn are_files(files: &[PathBuf]) -> bool {
    let is_file = |path: &PathBuf| path.as_os_str() != "-" && path.is_file();
    !files.is_empty() && files.iter().all(is_file)
}

impl Definition {
    /// The definition that gave this plan. `sum` is that of the files before they were read.
    pub(super) fn new(
        files: &[PathBuf],
        documents: &Documents,
        options: &Options,
        plan: &PodPlan,
        follow: bool,
        sum: Sum,
    ) -> Option<Self> {
        if !are_files(files) {
            return None;
        }
        let pod = find(documents, options, &plan.namespace, &plan.name)?;
        Some(Self {
            files: files.to_vec(),
            options: options.clone(),
            facts: plan.facts.clone(),
            namespace: plan.namespace.clone(),
            name: plan.name.clone(),
            follow,
            sum,
            pod,
            documents: documents.clone(),
        })
    }

    pub(super) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Looks at the files again.
    pub(super) fn reread(&mut self) -> Reread {
        let sum = sum(&self.files);
        if std::mem::replace(&mut self.sum, sum) == sum {
            return Reread::Same;
        }
        let (mut documents, findings) = manifest::load(&self.files, self.options.name_seed);
        if findings.has_errors() {
            return Reread::Refused(errors(&findings));
        }
        let Some(pod) = find(&documents, &self.options, &self.namespace, &self.name) else {
            return Reread::Gone;
        };
        let mut remarks = self.keep_immutable(&mut documents);
        match self.follow {
            true => {
                // What holds for all pods holds for the edit: half of it is not applied.
                let placeholder = Facts::placeholder();
                let (_, mut findings) = plan::build(&documents, &self.options, &placeholder);
                let (_, of_jobs) = plan::jobs(&documents, &self.options, &placeholder);
                findings.extend(of_jobs);
                findings.sort();
                if findings.has_errors() {
                    return Reread::Refused(errors(&findings));
                }
                self.pod = pod;
            }
            false => {
                if pod.object.spec != self.pod.object.spec {
                    remarks.push(Remark {
                        reason: "SpecKept",
                        message: "the edited spec of the pod is for its next start: run it with --watch to follow, or start it again"
                            .to_owned(),
                    });
                }
                let (metadata, edited) = (&mut self.pod.object.metadata, pod.object.metadata);
                metadata.labels = edited.labels;
                metadata.annotations = edited.annotations;
                self.keep_missing(&mut documents, &mut remarks);
            }
        }
        let (plan, findings) = self.plan(&documents);
        let Some(plan) = plan.filter(|_| !findings.has_errors()) else {
            return Reread::Refused(errors(&findings));
        };
        self.documents = documents;
        Reread::Now {
            plan: Box::new(plan),
            remarks,
        }
    }

    fn plan(&self, documents: &Documents) -> (Option<PodPlan>, Findings) {
        plan::one(&self.pod, documents, &self.options, &self.facts)
    }

    /// What is `immutable` stays as it is for the pod's life: the API server refuses to change it, and the kubelet does not look at it again.
    fn keep_immutable(&self, documents: &mut Documents) -> Vec<Remark> {
        let mut remarks = Vec::new();
        let maps = &self.documents.config_maps;
        let held = keep_immutable(maps, &mut documents.config_maps);
        remarks.extend(held.iter().map(|name| kept("ConfigMap", name)));
        let secrets = &self.documents.secrets;
        let held = keep_immutable(secrets, &mut documents.secrets);
        remarks.extend(held.iter().map(|name| kept("Secret", name)));
        remarks
    }

    /// What is gone while the pod needs it stays as it was, as the files of a volume do on Kubernetes.
    fn keep_missing(&self, documents: &mut Documents, remarks: &mut Vec<Remark>) {
        if !self.plan(documents).1.has_errors() {
            return;
        }
        let maps: Vec<_> = missing(&self.documents.config_maps, &documents.config_maps);
        let secrets: Vec<_> = missing(&self.documents.secrets, &documents.secrets);
        documents.config_maps.extend(maps.iter().cloned());
        documents.secrets.extend(secrets.iter().cloned());
        // Only those without which it can't be planned: others were optional, or of another pod.
        for map in &maps {
            let mut without = documents.clone();
            let name = map.object.metadata.name.as_deref().unwrap_or_default();
            without
                .config_maps
                .retain(|one| !same(&one.object.metadata, &map.object.metadata));
            match self.plan(&without).1.has_errors() {
                true => remarks.push(gone("ConfigMap", name)),
                false => *documents = without,
            }
        }
        for secret in &secrets {
            let mut without = documents.clone();
            let name = secret.object.metadata.name.as_deref().unwrap_or_default();
            without
                .secrets
                .retain(|one| !same(&one.object.metadata, &secret.object.metadata));
            match self.plan(&without).1.has_errors() {
                true => remarks.push(gone("Secret", name)),
                false => *documents = without,
            }
        }
    }
}

fn find(
    documents: &Documents,
    options: &Options,
    namespace: &str,
    name: &str,
) -> Option<Object<Pod>> {
    let all = plan::objects(documents, options).into_iter();
    let mut found = all.filter(|pod| {
        let metadata = &pod.object.metadata;
        metadata.name.as_deref() == Some(name) && namespace_of(metadata) == namespace
    });
    found.next()
}

fn errors(findings: &Findings) -> Vec<String> {
    let errors = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error);
    errors.map(ToString::to_string).collect()
}

fn same(one: &ObjectMeta, other: &ObjectMeta) -> bool {
    one.name == other.name && namespace_of(one) == namespace_of(other)
}

fn kept(kind: &str, name: &str) -> Remark {
    Remark {
        reason: "ImmutableKept",
        message: format!("{kind} {name:?} is immutable: its change does not reach the running pod"),
    }
}

/// (Kubernetes: the reason is that of `volumemanager`, whose set-up of a volume fails likewise.)
fn gone(kind: &str, name: &str) -> Remark {
    Remark {
        reason: "FailedMount",
        message: format!(
            "{kind} {name:?} is gone from the files, and the pod refers to it: what it has of it stays"
        ),
    }
}

/// A ConfigMap or a Secret.
trait Source: Clone + PartialEq {
    fn metadata(&self) -> &ObjectMeta;
    fn is_immutable(&self) -> bool;
}

impl Source for ConfigMap {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

impl Source for Secret {
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn is_immutable(&self) -> bool {
        self.immutable == Some(true)
    }
}

/// Puts what was immutable before in the place of what is there now; the names of those that differed.
fn keep_immutable<T: Source>(before: &[Object<T>], now: &mut Vec<Object<T>>) -> Vec<String> {
    let mut held = Vec::new();
    for old in before.iter().filter(|old| old.object.is_immutable()) {
        let metadata = old.object.metadata();
        let found = now
            .iter_mut()
            .find(|one| same(one.object.metadata(), metadata));
        match found {
            Some(one) if one.object == old.object => {}
            Some(one) => {
                *one = old.clone();
                held.push(metadata.name.clone().unwrap_or_default());
            }
            None => now.push(old.clone()),
        }
    }
    held
}

fn missing<T: Source>(before: &[Object<T>], now: &[Object<T>]) -> Vec<Object<T>> {
    let there = |old: &&Object<T>| {
        let metadata = old.object.metadata();
        now.iter().any(|one| same(one.object.metadata(), metadata))
    };
    before.iter().filter(|old| !there(old)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::NameSeed;

    const POD: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {tier: LABEL}}
spec:
  containers:
  - name: app
    image: podkit
    args: [echo, --ARG]
    env: [{name: WORD, valueFrom: {configMapKeyRef: {name: c, key: k}}}]
    volumeMounts: [{name: v, mountPath: /v}]
  volumes:
  - name: v
    projected:
      sources:
      - configMap: {name: c}
      - secret: {name: maybe, optional: true}
      - downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
";
    const MAP: &str =
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\nMORE\ndata: {k: VALUE}\n";
    const SECRET: &str =
        "---\napiVersion: v1\nkind: Secret\nmetadata: {name: maybe}\nstringData: {s: x}\n";

    struct World {
        _dir: tempfile::TempDir,
        file: PathBuf,
        definition: Definition,
    }

    fn text(label: &str, arg: &str, value: &str) -> String {
        let pod = POD.replace("LABEL", label).replace("ARG", arg);
        pod + &MAP.replace("VALUE", value).replace("MORE", "") + SECRET
    }

    fn world(text: &str, follow: bool) -> World {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pod.yaml");
        std::fs::write(&file, text).unwrap();
        let files = [file.clone()];
        let sum = sum(&files);
        let (documents, findings) = manifest::load(&files, NameSeed::default());
        assert!(!findings.has_errors(), "{findings}");
        let options = Options::default();
        let (plans, findings) = plan::build(&documents, &options, &Facts::placeholder());
        assert!(!findings.has_errors(), "{findings}");
        let definition = Definition::new(&files, &documents, &options, &plans[0], follow, sum);
        World {
            _dir: dir,
            file,
            definition: definition.unwrap(),
        }
    }

    impl World {
        fn edit(&mut self, text: &str) -> Reread {
            std::fs::write(&self.file, text).unwrap();
            self.definition.reread()
        }

        /// What the pod is then: the reasons of the remarks, the files of its volume, `WORD`, and the argument.
        fn now(&mut self, text: &str) -> (Vec<&'static str>, String, String, String) {
            match self.edit(text) {
                Reread::Now { plan, remarks } => {
                    let crate::plan::VolumeKind::Files { files, .. } = &plan.volumes[0].kind else {
                        panic!("{plan:?}");
                    };
                    let bytes = |path: &str| {
                        let file = files.get(path).map(|file| file.bytes.clone());
                        String::from_utf8(file.unwrap_or_default()).unwrap()
                    };
                    let all = ["k", "labels", "s"].map(bytes).join(" ");
                    let reasons = remarks.iter().map(|remark| remark.reason).collect();
                    let app = &plan.containers[0];
                    (reasons, all, app.env[0].1.clone(), app.args[1].clone())
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn expect(
        reasons: &[&'static str],
        files: &str,
        word: &str,
        arg: &str,
    ) -> (Vec<&'static str>, String, String, String) {
        (
            reasons.to_vec(),
            files.to_owned(),
            word.to_owned(),
            arg.to_owned(),
        )
    }

    #[test]
    fn a_pod_takes_what_kubernetes_lets_change_and_no_more() {
        let mut world = world(&text("a", "x", "one"), false);
        assert!(matches!(world.definition.reread(), Reread::Same));
        let now = world.now(&text("b", "x", "two"));
        assert_eq!(now, expect(&[], "two tier=\"b\" x", "two", "--x"));
        let now = world.now(&text("b", "y", "three"));
        assert_eq!(
            now,
            expect(&["SpecKept"], "three tier=\"b\" x", "three", "--x")
        );
    }

    #[test]
    fn with_watch_the_edited_spec_is_the_pods() {
        let mut world = world(&text("a", "x", "one"), true);
        let now = world.now(&text("b", "y", "two"));
        assert_eq!(now, expect(&[], "two tier=\"b\" x", "two", "--y"));
    }

    #[test]
    fn a_broken_edit_is_refused_with_its_place() {
        for follow in [false, true] {
            let mut world = world(&text("a", "x", "one"), follow);
            let Reread::Refused(lines) = world.edit("a: [\n") else {
                panic!("taken over");
            };
            assert!(lines[0].contains("pod.yaml:"), "{lines:?}");
            let now = world.now(&text("a", "x", "two"));
            assert_eq!(now, expect(&[], "two tier=\"a\" x", "two", "--x"));
        }
    }

    #[test]
    fn what_is_gone_stays_while_it_is_needed() {
        let whole = text("a", "x", "one");
        let without_map = POD.replace("LABEL", "b").replace("ARG", "x") + SECRET;
        let mut world = world(&whole, false);
        let now = world.now(&without_map);
        assert_eq!(
            now,
            expect(&["FailedMount"], "one tier=\"b\" x", "one", "--x")
        );
        // An optional one is not needed.
        let now = world.now(&POD.replace("LABEL", "b").replace("ARG", "x"));
        assert_eq!(
            now,
            expect(&["FailedMount"], "one tier=\"b\" ", "one", "--x")
        );
        let now = world.now(&text("b", "x", "two"));
        assert_eq!(now, expect(&[], "two tier=\"b\" x", "two", "--x"));
    }

    #[test]
    fn with_watch_what_check_refuses_is_refused() {
        let mut world = world(&text("a", "x", "one"), true);
        let Reread::Refused(lines) = world.edit(&(POD.replace("LABEL", "b") + SECRET)) else {
            panic!("taken over");
        };
        assert!(
            lines[0].contains("there is no ConfigMap \"c\""),
            "{lines:?}"
        );
    }

    #[test]
    fn what_is_immutable_is_not_followed() {
        let immutable = |value: &str| {
            let pod = POD.replace("LABEL", "a").replace("ARG", "x");
            pod + &MAP
                .replace("VALUE", value)
                .replace("MORE", "immutable: true")
        };
        for follow in [false, true] {
            let mut world = world(&immutable("one"), follow);
            let now = world.now(&immutable("two"));
            assert_eq!(
                now,
                expect(&["ImmutableKept"], "one tier=\"a\" ", "one", "--x")
            );
        }
    }

    #[test]
    fn a_pod_that_is_in_its_files_no_more() {
        let mut world = world(&text("a", "x", "one"), false);
        let other = text("a", "x", "one").replace("name: web", "name: other");
        assert!(matches!(world.edit(&other), Reread::Gone));
    }

    #[test]
    fn what_can_be_read_once_only_is_not_followed() {
        assert!(!are_files(&["-".into()]));
        assert!(!are_files(&["/dev/null".into()]));
    }
}
