//! Documents to objects: which kinds there are, `List`, and what may exist only once.

use std::collections::HashMap;
use std::path::Path as FilePath;
use std::sync::Arc;

use k8s_openapi::Metadata;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;

use super::decode::decode;
use super::finding::{Findings, Place, Severity};
use super::generate::{NameSeed, Names};
use super::node::{Node, Path, Source, Value};
use super::{Documents, Object, namespace_of, nearest, read, validate, yaml};

/// Collects what several files hold.
#[derive(Default)]
pub(super) struct Loader {
    documents: Documents,
    pub(super) findings: Findings,
    /// Files without an object in them. Beside others they do no harm: a directory has what was commented out.
    empty: Vec<String>,
    /// There was an object, or something that was to be one.
    any: bool,
    /// For objects that have no name of their own.
    names: Names,
    /// Kind, namespace and name of every object, with its place.
    seen: HashMap<(&'static str, String, String), Place>,
}

/// What is read, and with which `apiVersion`.
pub(super) const KINDS: &[(&str, &str)] = &[
    ("Pod", "v1"),
    ("Job", "batch/v1"),
    ("ConfigMap", "v1"),
    ("Secret", "v1"),
    ("PersistentVolumeClaim", "v1"),
    ("List", "v1"),
];
/// Kinds that would start something: to leave them out would not be what the file says.
pub(super) const REFUSED: &[&str] = &[
    "CronJob",
    "DaemonSet",
    "Deployment",
    "PodTemplate",
    "ReplicaSet",
    "ReplicationController",
    "StatefulSet",
];
/// Kinds that come along with pods and change nothing in them here.
pub(super) const IGNORED: &[(&str, &str)] = &[
    ("APIService", NO_API),
    ("ClusterRole", NO_API),
    ("ClusterRoleBinding", NO_API),
    (
        "CSIDriver",
        "a claim is a directory of podkit's own, whatever volumes there are",
    ),
    ("CustomResourceDefinition", NO_API),
    ("Endpoints", NO_SERVICE),
    ("EndpointSlice", NO_SERVICE),
    (
        "HorizontalPodAutoscaler",
        "nothing is scaled on one machine",
    ),
    ("Ingress", NO_SERVICE),
    ("IngressClass", NO_SERVICE),
    (
        "LimitRange",
        "resources are what each pod says; no defaults are put in",
    ),
    ("MutatingWebhookConfiguration", NO_API),
    ("Namespace", "a namespace needs no object here"),
    ("NetworkPolicy", "traffic of pods is not filtered"),
    (
        "PersistentVolume",
        "a claim is a directory of podkit's own, whatever volumes there are",
    ),
    ("PodDisruptionBudget", "nothing is drained on one machine"),
    ("PriorityClass", "nothing is scheduled on one machine"),
    ("ResourceQuota", "resources are what each pod says"),
    ("Role", NO_API),
    ("RoleBinding", NO_API),
    ("Service", NO_SERVICE),
    ("ServiceAccount", NO_API),
    (
        "StorageClass",
        "a claim is a directory of podkit's own, whatever volumes there are",
    ),
    ("ValidatingAdmissionPolicy", NO_API),
    ("ValidatingAdmissionPolicyBinding", NO_API),
    ("ValidatingWebhookConfiguration", NO_API),
];
const NO_API: &str = "there is no API server to talk to";
const NO_SERVICE: &str =
    "nothing resolves or balances Services; a pod's ports are on this machine's loopback";

/// The API group of an `apiVersion`, when it is none of Kubernetes' own: a Service of Knative is not a Service.
fn foreign_group(version: &str) -> Option<&str> {
    let (group, _) = version.split_once('/')?;
    (group.contains('.') && !group.ends_with(".k8s.io")).then_some(group)
}

/// The kinds that are read, for messages.
fn known() -> String {
    let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
    let (last, first) = names.split_last().unwrap_or((&"", &[]));
    format!("{} and {last}", first.join(", "))
}

impl Loader {
    pub(super) fn new(seed: NameSeed) -> Self {
        Self {
            names: Names::new(seed),
            ..Self::default()
        }
    }

    pub(super) fn file(&mut self, name: &str, bytes: &[u8]) {
        let file: Arc<str> = Arc::from(name);
        let text = match read::text(bytes) {
            Ok(text) => text,
            Err((line, column, why)) => {
                let place = Place { file, line, column };
                self.lost();
                return self.findings.add(Severity::Error, place, "", why);
            }
        };
        let errors = self.findings.count(Severity::Error);
        let documents = yaml::documents(text, &file, &mut self.findings);
        if self.findings.count(Severity::Error) > errors {
            self.any = true;
            self.lost();
        } else if documents.is_empty() {
            self.empty.push(name.to_owned());
        }
        self.any |= !documents.is_empty();
        for root in documents {
            self.object(Source::new(Arc::clone(&file), Arc::new(root), Path::root()));
        }
    }

    /// A file that can't be read, and why.
    pub(super) fn unreadable(&mut self, file: &FilePath, message: String) {
        self.lost();
        self.any = true;
        let place = Place::whole(&file.display().to_string());
        self.findings.add(Severity::Error, place, "", message);
    }

    pub(super) fn finish(mut self) -> (Documents, Findings) {
        let (severity, message) = match self.any {
            true => (Severity::Warning, "there is no object in it"),
            false => (Severity::Error, "empty: there is no object in it"),
        };
        if !self.any {
            // That there is nothing is said once.
            self.lost();
        }
        for name in std::mem::take(&mut self.empty) {
            self.findings
                .add(severity, Place::whole(&name), "", message);
        }
        self.findings.sort();
        (self.documents, self.findings)
    }

    /// Something can't be made out, so that a reference to it may be a good one.
    pub(super) fn lost(&mut self) {
        for kind in ["Pod", "Job", "ConfigMap", "Secret", "PersistentVolumeClaim"] {
            self.documents
                .broken
                .push((kind, String::new(), String::new()));
        }
    }

    fn error(&mut self, source: &Source, path: &Path, message: impl Into<String>) {
        let (place, path) = (source.place(path), source.full(path));
        self.findings.add(Severity::Error, place, path, message);
    }

    fn object(&mut self, source: Source) {
        let here = Path::root();
        let Some(node) = source.find(&here) else {
            return;
        };
        if !matches!(node.value, Value::Map(_)) {
            let message = format!("expected an object, found {}", node.describe());
            self.lost();
            return self.error(&source, &here, message);
        }
        let text = |field: &str| node.get(field).and_then(Node::as_str).map(str::to_owned);
        let (kind, version) = (text("kind"), text("apiVersion"));
        let Some(kind) = kind else {
            let message = format!("kind is missing: {}", known());
            self.lost();
            return self.error(&source, &here.key("kind"), message);
        };
        let at = here.key("kind");
        let foreign = version.as_deref().and_then(foreign_group);
        if let Some(group) = foreign
            && !KINDS.iter().any(|(name, _)| *name == kind)
        {
            let message = format!(
                "refused: {kind} of {group} is not supported; {} are",
                known()
            );
            self.lost();
            return self.error(&source, &at, message);
        }
        if let Some((_, reason)) = IGNORED.iter().find(|(name, _)| *name == kind) {
            let place = source.place(&at);
            let message = format!("{kind}: {reason}");
            return self
                .findings
                .add(Severity::Ignored, place, source.full(&at), message);
        }
        let Some((_, wanted)) = KINDS.iter().find(|(name, _)| *name == kind) else {
            let names = KINDS.iter().map(|(name, _)| *name);
            let message = if REFUSED.contains(&kind.as_str()) {
                format!("refused: {kind} is not supported yet; {} are", known())
            } else if let Some(near) = nearest(&kind, names) {
                format!("unknown kind {kind}; did you mean {near}?")
            } else {
                format!("refused: {kind} is not supported; {} are", known())
            };
            self.lost();
            return self.error(&source, &at, message);
        };
        if version.as_deref() != Some(*wanted) {
            let message = match version {
                None => format!("apiVersion is missing: {wanted} for a {kind}"),
                Some(version) => format!("{version:?} is not the version of a {kind}: {wanted}"),
            };
            self.lost();
            return self.error(&source, &here.key("apiVersion"), message);
        }
        match kind.as_str() {
            "List" => self.list(&source),
            "Pod" => {
                if let Some(pod) = self.decode::<Pod>("Pod", source, validate::pod) {
                    self.documents.pods.push(pod);
                }
            }
            "Job" => {
                if let Some(job) = self.decode::<Job>("Job", source, validate::job) {
                    self.documents.jobs.push(job);
                }
            }
            "PersistentVolumeClaim" => {
                let kind = "PersistentVolumeClaim";
                let claim = self.decode::<PersistentVolumeClaim>(kind, source, validate::claim);
                self.documents.claims.extend(claim);
            }
            "ConfigMap" => {
                if let Some(map) =
                    self.decode::<ConfigMap>("ConfigMap", source, validate::config_map)
                {
                    self.documents.config_maps.push(map);
                }
            }
            _ => {
                if let Some(secret) = self.decode::<Secret>("Secret", source, validate::secret) {
                    self.documents.secrets.push(secret);
                }
            }
        }
    }

    fn list(&mut self, source: &Source) {
        let here = Path::root();
        let Some(Value::Map(entries)) = source.find(&here).map(|node| &node.value) else {
            return;
        };
        for entry in entries {
            if !["apiVersion", "kind", "metadata", "items"].contains(&entry.key.as_str()) {
                let path = here.key(entry.key.clone());
                let place = source.key_place(&path);
                self.findings.add(
                    Severity::Error,
                    place,
                    source.full(&path),
                    "unknown field of a List",
                );
            }
        }
        match source.find(&here.key("items")).map(|node| &node.value) {
            Some(Value::Seq(items)) => {
                for (index, node) in items.iter().enumerate() {
                    let item = here.item("items", index);
                    // A List in a List is nothing that kubectl writes; without it nesting needs no bound.
                    if node.get("kind").and_then(Node::as_str) == Some("List") {
                        self.error(source, &item, "a List inside a List");
                    } else {
                        self.object(source.below(&item));
                    }
                }
            }
            Some(_) => self.error(source, &here.key("items"), "expected a list"),
            None => self.error(source, &here, "a List needs items"),
        }
    }

    /// `metadata.generateName`, when it is what there is.
    fn name(&mut self, kind: &'static str, metadata: &mut ObjectMeta) {
        let is = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        if is(&metadata.name) || !is(&metadata.generate_name) {
            return;
        }
        let namespace = namespace_of(metadata).to_owned();
        let prefix = metadata.generate_name.as_deref().unwrap_or_default();
        let taken = |name: &str| {
            let key = (kind, namespace.clone(), name.to_owned());
            self.seen.contains_key(&key)
        };
        let name = self.names.next(kind, &namespace, prefix, taken);
        metadata.name = Some(name);
    }

    /// Decodes and validates one object; only one without errors is kept.
    fn decode<T: DeserializeOwned + Metadata<Ty = ObjectMeta>>(
        &mut self,
        kind: &'static str,
        source: Source,
        validate: fn(&T, &mut validate::Notes<'_>),
    ) -> Option<Object<T>> {
        let before = self.findings.count(Severity::Error);
        let Some(mut object) = decode::<T>(&source, &mut self.findings) else {
            self.documents
                .broken
                .push((kind, String::new(), String::new()));
            return None;
        };
        // With a field misread there is no point in judging what depends on it.
        if self.findings.count(Severity::Error) == before {
            validate(
                &object,
                &mut validate::Notes::new(&source, &mut self.findings),
            );
        }
        self.name(kind, object.metadata_mut());
        let metadata = object.metadata();
        let name = metadata.name.clone().unwrap_or_default();
        let key = (kind, namespace_of(metadata).to_owned(), name);
        let path = Path::root().key("metadata").key("name");
        if let Some(first) = self.seen.get(&key) {
            let message = format!("the {kind} {:?} was given before, at {first}", key.2);
            self.error(&source, &path, message);
        } else {
            self.seen.insert(key.clone(), source.place(&path));
        }
        if self.findings.count(Severity::Error) > before {
            self.documents.broken.push(key);
            return None;
        }
        Some(Object { object, source })
    }
}
