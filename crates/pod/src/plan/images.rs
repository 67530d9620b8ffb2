//! Where a container's programs come from: option over annotation over the image's name.

use std::collections::BTreeMap;
use std::path::Path as FilePath;

use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::ImageSource;
use super::build::Context;
use super::facts::IMAGE_OPTION;
use crate::image::{DEFAULT_TAG, Location, Reference};
use crate::manifest::{Notes, Path, all_containers, nearest};

/// `podkit.dev/image.CONTAINER: SOURCE`.
const ANNOTATION: &str = "podkit.dev/image.";
const OURS: &str = "podkit.dev/";

/// The source of a container's root file system; `None` when there is none (noted).
pub(super) fn source(
    container: &Container,
    at: &Path,
    context: &Context<'_>,
    notes: &mut Notes<'_>,
) -> Option<ImageSource> {
    let name = &container.name;
    let image = container.image.as_deref().unwrap_or("");
    let option = context
        .options
        .images
        .iter()
        .rev()
        .find(|(of, _)| of == name);
    let annotations = context.pod.metadata.annotations.as_ref();
    let annotation = annotations.and_then(|all| all.get(&format!("{ANNOTATION}{name}")));
    let source = if let Some((_, text)) = option {
        match parse(text, FilePath::new("")) {
            Ok(source) => source,
            Err(message) => {
                notes.option(IMAGE_OPTION, format!("{name}={text}: {message}"));
                return None;
            }
        }
    } else if let Some(text) = annotation {
        // A directory is meant as seen from the file.
        let base = FilePath::new(context.file)
            .parent()
            .unwrap_or(FilePath::new(""));
        match parse(text, base) {
            Ok(source) => source,
            Err(message) => {
                let path = Path::root().key("metadata").key("annotations");
                notes.error(&path.key(format!("{ANNOTATION}{name}")), message);
                return None;
            }
        }
    } else {
        match by_name(image) {
            Ok(source) => source,
            Err(message) => {
                notes.error(&at.key("image"), message);
                return None;
            }
        }
    };
    if source == ImageSource::Host {
        notes.risk(
            &at.key("image"),
            "runs this machine's own programs and reads its files (image source host)",
        );
    }
    Some(source)
}

/// `podkit`, `host`, `rootfs:DIR`, or a place of images.
fn parse(text: &str, base: &FilePath) -> Result<ImageSource, String> {
    match text {
        "podkit" => return Ok(ImageSource::Itself),
        "host" => return Ok(ImageSource::Host),
        _ => {}
    }
    if let Some(location) = Location::parse(text, base) {
        return location
            .map(ImageSource::Image)
            .map_err(|error| error.to_string());
    }
    let Some(dir) = text.strip_prefix("rootfs:") else {
        let hint = nearest(text, ["podkit", "host"])
            .map(|near| format!("; did you mean {near}?"))
            .unwrap_or_default();
        return Err(format!(
            "{text:?} is none of podkit, host, rootfs:DIR, oci:DIR, docker-archive:FILE, docker-daemon:IMAGE, docker://IMAGE{hint}"
        ));
    };
    if dir.is_empty() {
        return Err("rootfs: needs a directory behind the colon".into());
    }
    let path = base.join(dir);
    match path.canonicalize() {
        Ok(path) if path.is_dir() => Ok(ImageSource::Rootfs(path)),
        Ok(path) => Err(format!("{} is not a directory", path.display())),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// The binary itself, when the image is podkit's of this version; any other is pulled. The kubelet would say InvalidImageName
/// at the start; here it is said before.
pub(super) fn by_name(image: &str) -> Result<ImageSource, String> {
    let reference: Reference = image
        .parse()
        .map_err(|error| format!("couldn't parse image name {image:?}: {error}"))?;
    let this_version = match reference.tag() {
        None | Some(DEFAULT_TAG) => true,
        Some(tag) => tag == podkit_foundation::VERSION,
    };
    if reference.base() == "podkit" && reference.digest().is_none() && this_version {
        return Ok(ImageSource::Itself);
    }
    let reference = reference.with_default_tag();
    Ok(ImageSource::Image(Location::Registry(reference)))
}

/// An image source without an image has no entrypoint.
pub(super) fn check_entrypoint(
    source: &ImageSource,
    container: &Container,
    at: &Path,
    notes: &mut Notes<'_>,
) {
    let empty = |texts: &Option<Vec<String>>| texts.as_deref().unwrap_or_default().is_empty();
    if !empty(&container.command) {
        return;
    }
    match source {
        ImageSource::Itself if empty(&container.args) => notes.warning(
            &at.key("args"),
            "podkit without arguments shows its help and ends; args names the module: args: [tls]",
        ),
        // What an image says is known when it is there.
        ImageSource::Itself | ImageSource::Image(_) => {}
        ImageSource::Host | ImageSource::Rootfs(_) => notes.error(
            &at.key("command"),
            "a command is missing: this image source has no entrypoint of its own",
        ),
    }
}

/// Annotations of ours say something that there is.
pub(super) fn check_annotations(
    annotations: &BTreeMap<String, String>,
    spec: &PodSpec,
    notes: &mut Notes<'_>,
) {
    let names: Vec<&str> = all_containers(spec)
        .map(|(_, _, c)| c.name.as_str())
        .collect();
    for key in annotations.keys().filter(|key| key.starts_with(OURS)) {
        let path = Path::root()
            .key("metadata")
            .key("annotations")
            .key(key.clone());
        match key.strip_prefix(ANNOTATION) {
            Some(name) if names.contains(&name) => {}
            Some(name) => {
                let hint = nearest(name, names.iter().copied())
                    .map(|near| format!("; did you mean {near}?"))
                    .unwrap_or_else(|| format!("; there are {}", names.join(", ")));
                notes.error(&path, format!("there is no container {name:?}{hint}"));
            }
            None => notes.error(
                &path,
                format!("unknown annotation; there is {ANNOTATION}CONTAINER"),
            ),
        }
    }
}
