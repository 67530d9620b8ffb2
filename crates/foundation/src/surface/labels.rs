//! Image labels of a module: OCI's `org.opencontainers.image.*` (image-spec annotations.md) and label-schema.org's
//! `org.label-schema.*` (1.0), which older tools read.

use super::ModuleSpec;

/// Name and value, sorted by name.
pub fn of(spec: &ModuleSpec) -> Vec<(String, String)> {
    let title = format!("podkit {}", spec.name);
    let variables: Vec<String> = spec
        .all_params()
        .iter()
        .map(|param| format!("{}={}", param.variable(), param.help()))
        .collect();
    let pairs = [
        ("org.label-schema.description", spec.summary.to_owned()),
        (
            "org.label-schema.docker.cmd",
            format!("docker run -e PODKIT_… podkit {}", spec.name),
        ),
        ("org.label-schema.docker.params", variables.join(", ")),
        ("org.label-schema.name", title.clone()),
        ("org.label-schema.schema-version", "1.0".to_owned()),
        ("org.label-schema.version", crate::VERSION.to_owned()),
        (
            "org.opencontainers.image.description",
            spec.summary.to_owned(),
        ),
        (
            "org.opencontainers.image.licenses",
            "MIT OR Apache-2.0".to_owned(),
        ),
        ("org.opencontainers.image.title", title),
        (
            "org.opencontainers.image.version",
            crate::VERSION.to_owned(),
        ),
    ];
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}
