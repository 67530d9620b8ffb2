//! The pod's own fields as files: `downwardAPI` volumes. (Kubernetes: `pkg/volume/downwardapi`, `pkg/fieldpath`)

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::DownwardAPIVolumeFile;

use super::build::Context;
use super::env;
use super::published::Published;
use crate::manifest::{Notes, Path, all_containers, nearest};

/// Those that a file can hold. (Kubernetes: `validVolumeDownwardAPIFieldPathExpressions`)
const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.labels",
    "metadata.annotations",
    "metadata.uid",
    "metadata.labels['KEY']",
    "metadata.annotations['KEY']",
];

/// Adds a file for each item.
pub(super) fn files(
    items: &[DownwardAPIVolumeFile],
    at: &Path,
    context: &Context<'_>,
    out: &mut Published,
    notes: &mut Notes<'_>,
) {
    for (i, item) in items.iter().enumerate() {
        let at = at.item("items", i);
        if let Some(text) = text(item, &at, context, notes) {
            out.add(
                &item.path,
                text.into_bytes(),
                item.mode,
                &at.key("path"),
                notes,
            );
        }
    }
}

fn text(
    item: &DownwardAPIVolumeFile,
    at: &Path,
    context: &Context<'_>,
    notes: &mut Notes<'_>,
) -> Option<String> {
    if let Some(field) = &item.field_ref {
        let at = at.key("fieldRef");
        let metadata = &context.pod.metadata;
        let path = field.field_path.as_str();
        return match path {
            "metadata.labels" => Some(lines(metadata.labels.as_ref())),
            "metadata.annotations" => Some(lines(metadata.annotations.as_ref())),
            _ if FIELDS.contains(&path) || env::subscript(path).is_some() => {
                env::field_ref(field, &at, context, notes)
            }
            other => {
                let hint = match nearest(other, FIELDS.iter().copied()) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("there are {}", FIELDS.join(", ")),
                };
                let message = format!("{other:?} can't be a file; {hint}");
                notes.error(&at.key("fieldPath"), message);
                None
            }
        };
    }
    let resource = item.resource_field_ref.as_ref()?;
    let at = at.key("resourceFieldRef");
    // A volume is of no container: the reference says which (validated).
    let name = resource.container_name.as_deref().unwrap_or_default();
    let (_, _, container) = all_containers(context.spec)
        .find(|(_, _, c)| c.name == name)
        .or_else(|| all_containers(context.spec).next())?;
    env::resource_field(resource, container, &at, context, notes)
}

/// `key="value"` a line, by key, without a line feed at the end. (Kubernetes: `fieldpath.FormatMap`)
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten();
    let lines: Vec<String> = lines
        .map(|(key, value)| format!("{key}={}", quoted(value)))
        .collect();
    lines.join("\n")
}

/// As Go's `%q` quotes.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c.is_ascii_control() => {
                let _infallible = write!(out, "\\x{:02x}", u32::from(c));
            }
            // Go escapes what it doesn't print: other controls, and every space but the ASCII one.
            c if c.is_control() || (c.is_whitespace() && c != ' ') => {
                let _infallible = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
