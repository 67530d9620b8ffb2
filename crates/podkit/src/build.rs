//! `podkit image build`: podkit's own image out of the running binary, without an engine, the same bytes each time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use podkit_foundation::error::Failure;
use podkit_foundation::params::{ParamError, ParamSet};
use podkit_foundation::surface::labels;
use podkit_pod::image::{Built, Keyring, Recipe, Reference};

use crate::{cli, registry};

podkit_foundation::params! {
    /// What `image build` takes.
    pub(crate) struct BuildParams {
        /// Where it goes: oci:DIR or docker-archive:FILE.
        output: Option<String> { short: Some('o') },
        /// The image's name; podkit:VERSION when not given.
        tag: Option<String> { short: Some('t') },
        /// Push it to a registry under this name.
        push: Option<String> {},
        /// Credentials for the push, as docker login writes them, instead of the user's own.
        authfile: Option<PathBuf> {},
    }
}

pub(crate) fn command() -> Command {
    cli::with_params(Command::new("build"), BuildParams::PARAMS).about(
        "Make podkit's own image from this binary: FROM scratch, reproducible, without an engine",
    )
}

pub(crate) fn build(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let params = BuildParams::from_values(&cli::values(BuildParams::PARAMS, matches))?;
    let reference = |field: &'static str, text: &str| -> Result<Reference, Failure> {
        let parsed = text.parse::<Reference>().map(Reference::with_default_tag);
        parsed.map_err(|error| ParamError::new(field, format!("{text:?}: {error}")).into())
    };
    let name = match &params.tag {
        Some(tag) => reference("tag", tag)?,
        None => reference("tag", &format!("podkit:{}", podkit_foundation::VERSION))?,
    };
    let push = params
        .push
        .as_deref()
        .map(|name| reference("push", name))
        .transpose()?;
    if params.output.is_none() && push.is_none() {
        let why =
            "say where it goes: -o oci:DIR, -o docker-archive:FILE or --push IMAGE".to_owned();
        return Err(ParamError::new("output", why).into());
    }
    let output = params.output.as_deref().map(Output::parse).transpose()?;
    let runtime = |error: &dyn std::fmt::Display| Failure::Runtime(error.to_string());
    let built = Built::new(&recipe()).map_err(|error| runtime(&error))?;
    match &output {
        Some(Output::Layout(dir)) => built.write_layout(dir, &name),
        Some(Output::Archive(file)) => built.write_archive(file, &name),
        None => Ok(()),
    }
    .map_err(|error| runtime(&error))?;
    if let Some(reference) = &push {
        let keyring = Keyring::new(&[], params.authfile.as_deref());
        let keyring = keyring.map_err(|error| Failure::Usage(error.to_string()))?;
        built
            .push(reference, &keyring)
            .map_err(|error| runtime(&error))?;
    }
    let shown = push.as_ref().unwrap_or(&name);
    cli::print(&format!("{}@{}\n", shown.name(), built.digest()))
}

enum Output {
    Layout(PathBuf),
    Archive(PathBuf),
}

impl Output {
    fn parse(text: &str) -> Result<Self, Failure> {
        let place =
            |path: &str| Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty());
        let output = match text.split_once(':') {
            Some(("oci", path)) => place(path).map(Self::Layout),
            Some(("docker-archive", path)) => place(path).map(Self::Archive),
            _ => None,
        };
        let why = || format!("{text:?} is neither oci:DIR nor docker-archive:FILE");
        output.ok_or_else(|| ParamError::new("output", why()).into())
    }
}

/// What the image says about itself: of all modules together.
fn recipe() -> Recipe {
    let specs = registry::specs();
    let mut ports = std::collections::BTreeSet::new();
    let mut image_labels: BTreeMap<String, String> = BTreeMap::new();
    for spec in &specs {
        ports.insert(spec.admin_port);
        ports.extend(spec.ports.iter().filter_map(|port| port.port));
        // Of one module, under its own name.
        for (name, value) in labels::of(spec) {
            if name == "org.label-schema.docker.params" {
                image_labels.insert(format!("dev.podkit.params.{}", spec.name), value);
            }
        }
    }
    let names: Vec<&str> = specs.iter().map(|spec| spec.name).collect();
    let description = format!(
        "The distributed-system toolkit as one program; args name the module: {}",
        names.join(", ")
    );
    let version = podkit_foundation::VERSION;
    for (name, value) in [
        ("org.label-schema.schema-version", "1.0"),
        ("org.label-schema.name", "podkit"),
        ("org.label-schema.version", version),
        ("org.label-schema.description", &description),
        (
            "org.label-schema.docker.cmd",
            "docker run -e PODKIT_… podkit MODULE",
        ),
        ("org.opencontainers.image.title", "podkit"),
        ("org.opencontainers.image.version", version),
        ("org.opencontainers.image.description", &description),
        ("org.opencontainers.image.licenses", "MIT OR Apache-2.0"),
    ] {
        image_labels.insert(name.to_owned(), value.to_owned());
    }
    Recipe {
        binary: PathBuf::from("/proc/self/exe"),
        labels: image_labels,
        exposed_ports: ports
            .into_iter()
            .map(|port| format!("{port}/tcp"))
            .collect(),
    }
}
