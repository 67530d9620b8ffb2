//! Manifests: text to objects, strictly.
//!
//! ```text
//! file ─ yaml ─▶ Node (positions) ─ decode ─▶ Pod, ConfigMap, Secret ─ validate ─▶ Documents
//!                                   fields: the table of what is honoured
//! ```
//!
//! What Kubernetes' API server would refuse is refused here with the line; what this version doesn't do is refused by
//! name; what has no meaning on one machine is said. Nothing is dropped silently, and everything that is wrong in a
//! file is listed at once.

mod decode;
mod fields;
mod names;
mod objects;
mod quantity;
mod read;
mod schema;
mod table;
mod validate;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::FULL as FULL_POD;

use std::path::PathBuf;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, PodTemplateSpec, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub(crate) use podkit_foundation::yaml::nearest;
#[cfg(test)]
use podkit_foundation::yaml::scalar;
pub use podkit_foundation::yaml::{Finding, Findings, Path, Place, Severity, Source};
use podkit_foundation::yaml::{finding, node, reader as yaml};

pub(crate) use names::{descending, ipc_sysctl, sysctl as sysctl_name};
pub use quantity::{Quantity, QuantityError};
#[cfg(test)]
pub(crate) use schema::types as schema_types;
pub use table::reference;
pub(crate) use validate::{Notes, all_containers};

/// An object and where it came from.
#[derive(Debug, Clone)]
pub struct Object<T> {
    /// The object, of Kubernetes' own type. Only fields that are honoured or ignored are set.
    pub object: T,
    /// Its place in the files.
    pub source: Source,
}

/// What the files hold, in order.
#[derive(Debug, Clone, Default)]
pub struct Documents {
    /// Every Pod.
    pub pods: Vec<Object<Pod>>,
    /// Every Job.
    pub jobs: Vec<Object<Job>>,
    /// Every PersistentVolumeClaim.
    pub claims: Vec<Object<PersistentVolumeClaim>>,
    /// Every ConfigMap.
    pub config_maps: Vec<Object<ConfigMap>>,
    /// Every Secret.
    pub secrets: Vec<Object<Secret>>,
    /// Kind, namespace and name of objects that had errors.
    broken: Vec<(&'static str, String, String)>,
}

impl Documents {
    /// An object of that kind had errors and is left out.
    pub(crate) fn is_broken(&self, kind: &str) -> bool {
        self.broken.iter().any(|(of, _, _)| *of == kind)
    }

    /// That very object had errors, or its name couldn't be read.
    pub(crate) fn is_broken_object(&self, kind: &str, namespace: &str, name: &str) -> bool {
        self.broken
            .iter()
            .any(|(k, ns, n)| *k == kind && (n.is_empty() || (ns == namespace && n == name)))
    }

    /// The ConfigMap of a name in a namespace.
    pub fn config_map(&self, namespace: &str, name: &str) -> Option<&ConfigMap> {
        let mut all = self.config_maps.iter().map(|o| &o.object);
        all.find(|o| is(&o.metadata, namespace, name))
    }

    /// The Secret of a name in a namespace.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<&Secret> {
        let mut all = self.secrets.iter().map(|o| &o.object);
        all.find(|o| is(&o.metadata, namespace, name))
    }
}

/// The metadata and the spec of the pods that a template makes, under `name`, with the template's own place.
pub(crate) fn template(
    object: &ObjectMeta,
    template: &PodTemplateSpec,
    name: &str,
    source: &Source,
) -> Object<Pod> {
    let mut metadata = template.metadata.clone().unwrap_or_default();
    metadata.name = Some(name.to_owned());
    metadata.namespace = Some(namespace_of(object).to_owned());
    let pod = Pod {
        metadata,
        spec: template.spec.clone(),
        status: None,
    };
    Object {
        object: pod,
        source: source.below(&Path::root().key("spec").key("template")),
    }
}

fn is(metadata: &ObjectMeta, namespace: &str, name: &str) -> bool {
    metadata.name.as_deref() == Some(name) && namespace_of(metadata) == namespace
}

/// `metadata.namespace`, `default` when absent.
pub fn namespace_of(metadata: &ObjectMeta) -> &str {
    match metadata.namespace.as_deref() {
        None | Some("") => "default",
        Some(namespace) => namespace,
    }
}

/// Reads files, and the manifests of directories; `-` is standard input. The documents are complete and valid when the findings have
/// no error.
pub fn load(files: &[PathBuf]) -> (Documents, Findings) {
    let mut loader = objects::Loader::default();
    if files.is_empty() {
        let message = "no file given; - is standard input";
        loader
            .findings
            .add(Severity::Error, Place::whole("manifest"), "", message);
    }
    let mut stdin_taken = false;
    for given in files {
        let expanded = match read::expand(given) {
            Ok(files) => files,
            Err(message) => {
                loader.unreadable(given, message);
                continue;
            }
        };
        for file in expanded {
            let stdin = file.as_os_str() == "-";
            let again = stdin && std::mem::replace(&mut stdin_taken, true);
            let content = if again {
                Err("standard input can be read once only".into())
            } else {
                read::file(&file)
            };
            match content {
                Ok(bytes) => loader.file(&file.display().to_string(), &bytes),
                Err(message) => loader.unreadable(&file, message),
            }
        }
    }
    loader.finish()
}

/// The same for a text that is at hand; `name` stands for the file in the findings.
pub fn parse(name: &str, content: &[u8]) -> (Documents, Findings) {
    let mut loader = objects::Loader::default();
    loader.file(name, content);
    loader.finish()
}
