//! Every field of every type that an object can hold, each once, by the shortest way to it.

use std::collections::{HashSet, VecDeque};

use serde_json::{Value, json};

use super::build::{Schema, Step};

/// What is tried at a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A value of its type.
    Good,
    /// A value of another type.
    OtherType,
    /// A field beside it that the type doesn't have.
    Unknown,
}

/// One manifest.
pub(super) struct Case {
    pub(super) kind: Kind,
    /// The field, for messages.
    pub(super) path: String,
    pub(super) manifest: Value,
}

/// What an API server writes and podkit leaves out unread: what is in it can't be wrong. And what says which object it is.
const APART: [&str; 11] = [
    "apiVersion",
    "kind",
    "status",
    "managedFields",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// The smallest object of that kind.
fn base(root: &str) -> Value {
    let spec = json!({"containers": [{"name": "app", "image": "podkit"}]});
    if root.ends_with("Job") {
        let mut template = json!({"spec": spec});
        template["spec"]["restartPolicy"] = json!("Never");
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "m"}, "spec": {"template": template}})
    } else {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "m"}, "spec": spec})
    }
}

/// The manifests for a kind of object.
pub(super) fn cases(schema: &Schema, root: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut seen = HashSet::from([root.to_owned()]);
    let mut pending = VecDeque::from([(root.to_owned(), Vec::new())]);
    while let Some((name, path)) = pending.pop_front() {
        let definition = schema.definition(&name);
        let mut add = |kind, path: &[Step], value| {
            let mut manifest = base(root);
            schema.put(schema.definition(root), &mut manifest, path, value);
            cases.push(Case {
                kind,
                path: shown(path),
                manifest,
            });
        };
        let Some(fields) = definition["properties"].as_object() else {
            continue;
        };
        let mut unknown = path.clone();
        unknown.push(Step::Field("noSuchField".to_owned()));
        add(Kind::Unknown, &unknown, json!("x"));
        for (field, of) in fields {
            let apart = APART.contains(&field.as_str()) && path.len() < 2;
            if apart {
                continue;
            }
            let mut here = path.clone();
            here.push(Step::Field(field.clone()));
            // The name is what tells the manifests apart.
            if here != [Step::Field("metadata".into()), Step::Field("name".into())] {
                add(Kind::Good, &here, schema.sample(field, of));
                add(Kind::OtherType, &here, schema.other_type(of));
            }
            let (inner, way) = innermost(schema, of, here);
            if let Some(next) = Schema::reference(inner)
                && seen.insert(next.to_owned())
            {
                pending.push_back((next.to_owned(), way));
            }
        }
    }
    cases
}

/// Through lists and maps to what they hold.
fn innermost<'a>(
    schema: &'a Schema,
    mut of: &'a Value,
    mut path: Vec<Step>,
) -> (&'a Value, Vec<Step>) {
    loop {
        let (step, inner) = match Schema::kind(schema.resolve(of)) {
            _ if Schema::reference(of).is_some() => return (of, path),
            "array" => (Step::Item, &of["items"]),
            "object" => (Step::Entry, &of["additionalProperties"]),
            _ => return (of, path),
        };
        path.push(step);
        of = inner;
    }
}

/// `spec.containers[0].image`.
fn shown(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(name) if text.is_empty() => text.push_str(name),
            Step::Field(name) => {
                text.push('.');
                text.push_str(name);
            }
            Step::Item => text.push_str("[0]"),
            Step::Entry => text.push_str("[k]"),
        }
    }
    text
}
