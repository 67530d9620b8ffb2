//! The table of fields against k8s-openapi's types.

use std::collections::BTreeSet;

use crate::manifest::fields::{TYPES, Verdict, verdict};
use crate::manifest::reference;
use crate::manifest::schema::types;

#[test]
fn every_field_is_decided() {
    let schema = types();
    assert!(schema.len() > 100, "{}", schema.len());
    for (kind, rows) in TYPES {
        let fields = schema
            .get(kind)
            .unwrap_or_else(|| panic!("no such type: {kind}"));
        let known: BTreeSet<_> = fields.iter().map(|(field, _)| *field).collect();
        let decided: BTreeSet<_> = rows.iter().map(|(field, _)| *field).collect();
        assert_eq!(decided, known, "{kind}");
        assert_eq!(rows.len(), decided.len(), "{kind} decides a field twice");
    }
}

/// A type that an honoured field leads to has rows of its own: else its fields would be refused one by one.
#[test]
fn every_type_of_an_honoured_field_is_decided() {
    let schema = types();
    for (kind, rows) in TYPES {
        for (field, _) in rows.iter().filter(|(_, v)| matches!(v, Verdict::Honoured)) {
            let (_, of) = schema[kind].iter().find(|(name, _)| name == field).unwrap();
            let bare = of.rsplit(']').next().unwrap();
            let leaf = !schema.contains_key(bare);
            let decided = TYPES.iter().any(|(name, _)| *name == bare);
            assert!(leaf || decided, "{kind}.{field}: {bare}");
        }
    }
}

#[test]
fn reasons_are_one_clause() {
    for (kind, rows) in TYPES {
        for (field, verdict) in *rows {
            if let Verdict::Ignored(reason)
            | Verdict::Refused(reason)
            | Verdict::RefusedUnless(_, reason) = verdict
            {
                assert!(
                    !reason.ends_with('.') && reason.len() > 10,
                    "{kind}.{field}: {reason}"
                );
            }
        }
    }
    assert!(verdict("Container", "image").is_some() && verdict("Container", "x").is_none());
}

#[test]
fn types_are_the_apis_own() {
    let schema = types();
    let of = |kind: &str, field: &str| {
        let (_, of) = schema[kind]
            .iter()
            .find(|(name, _)| *name == field)
            .unwrap();
        of.clone()
    };
    assert_eq!(of("PodSpec", "containers"), "[]Container");
    assert_eq!(of("PodSpec", "nodeSelector"), "map[string]string");
    assert_eq!(of("PodSpec", "hostNetwork"), "boolean");
    assert_eq!(of("Container", "image"), "string");
    assert_eq!(of("ContainerPort", "containerPort"), "integer");
    assert_eq!(of("HTTPGetAction", "port"), "integer or string");
    assert_eq!(of("ResourceRequirements", "limits"), "map[string]Quantity");
    assert_eq!(of("JobSpec", "template"), "PodTemplateSpec");
}

#[test]
fn the_page_has_every_row() {
    let page = reference();
    for (kind, rows) in TYPES {
        let section = page
            .split("\n## ")
            .find(|section| section.split('\n').next() == Some(*kind))
            .unwrap_or_else(|| panic!("{kind} is not on the page"));
        for (field, _) in *rows {
            assert!(
                section.contains(&format!("| `{field}` | ")),
                "{kind}.{field}"
            );
        }
    }
    assert!(page.contains("| `containers` | \\[\\][Container](#container) | honoured |"));
    assert!(page.contains(
        "| `nodeSelector` | map\\[string\\]string | ignored: nothing is scheduled on one machine |"
    ));
}
