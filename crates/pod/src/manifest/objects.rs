//! Documents to objects: which kinds there are, `List`, and what may exist only once.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;

use super::decode::decode;
use super::finding::{Findings, Place, Severity};
use super::node::{Node, Path, Source, Value};
use super::{Documents, Object, namespace_of, nearest, read, validate, yaml};

/// Collects what several files hold.
#[derive(Default)]
pub(super) struct Loader {
    documents: Documents,
    pub(super) findings: Findings,
    /// Kind, namespace and name of every object, with its place.
    seen: HashMap<(&'static str, String, String), Place>,
}

/// Kinds that a later version will have.
const PLANNED: &[&str] = &[
    "Deployment",
    "StatefulSet",
    "Service",
    "Job",
    "PersistentVolumeClaim",
];
const KINDS: &[&str] = &["Pod", "ConfigMap", "Secret", "List"];

impl Loader {
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
            self.lost();
        } else if documents.is_empty() {
            let message = "empty: there is no object in it";
            self.findings
                .add(Severity::Error, Place::whole(name), "", message);
        }
        for root in documents {
            self.object(Source::new(Arc::clone(&file), Arc::new(root), Path::root()));
        }
    }

    pub(super) fn finish(mut self) -> (Documents, Findings) {
        self.findings.sort();
        (self.documents, self.findings)
    }

    /// Something can't be made out, so that a reference to it may be a good one.
    pub(super) fn lost(&mut self) {
        for kind in ["Pod", "ConfigMap", "Secret"] {
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
            let message = "kind is missing: Pod, ConfigMap, Secret or List";
            self.lost();
            return self.error(&source, &here.key("kind"), message);
        };
        let v1 = version.as_deref() == Some("v1");
        if !KINDS.contains(&kind.as_str()) {
            let message = if PLANNED.contains(&kind.as_str()) {
                format!("{kind} is not supported yet; Pod, ConfigMap, Secret and List are")
            } else if let Some(near) = nearest(&kind, KINDS.iter().copied()) {
                format!("unknown kind {kind}; did you mean {near}?")
            } else {
                format!("{kind} is not supported; Pod, ConfigMap, Secret and List are")
            };
            self.lost();
            return self.error(&source, &here.key("kind"), message);
        }
        if !v1 {
            let message = match version {
                None => format!("apiVersion is missing: v1 for a {kind}"),
                Some(version) => format!("{version:?} is not the version of a {kind}: v1"),
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

    /// Decodes and validates one object; only one without errors is kept.
    fn decode<T: DeserializeOwned + Metadata<Ty = ObjectMeta>>(
        &mut self,
        kind: &'static str,
        source: Source,
        validate: fn(&T, &mut validate::Notes<'_>),
    ) -> Option<Object<T>> {
        let before = self.findings.count(Severity::Error);
        let Some(object) = decode::<T>(&source, &mut self.findings) else {
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
