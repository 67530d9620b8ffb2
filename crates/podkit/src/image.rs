//! `podkit image …`: the store's commands, in the words of docker and podman.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Arg, ArgMatches, Command};
use podkit_foundation::error::Failure;
use podkit_foundation::params::{ParamError, ParamSet};
use podkit_pod::image::{Listed, Location, Platform, Reference, Removed, Store, Wanted};
use podkit_pod::plan::PullPolicy;
use serde_json::{Value, json};

use crate::{cli, progress};

podkit_foundation::choices! {
    /// The form of the output.
    pub(crate) enum Form {
        /// For people.
        Text = "text",
        /// For people with wide terminals.
        Wide = "wide",
        /// For programs.
        Json = "json",
    }
}

podkit_foundation::params! {
    /// What `image pull` takes.
    pub(crate) struct PullParams {
        /// For this platform instead of the machine's, such as linux/arm64.
        platform: Option<String> {},
        /// Credentials, as docker login writes them, instead of the user's own.
        authfile: Option<PathBuf> {},
        /// Say nothing but the digest's name.
        quiet: bool { default: Some("false"), short: Some('q') },
        /// Keep images below this directory instead of /var/lib/podkit.
        state_dir: Option<PathBuf> {},
    }
}

podkit_foundation::params! {
    /// What `image load` takes.
    pub(crate) struct LoadParams {
        /// Of an archive with several platforms, this one instead of the machine's.
        platform: Option<String> {},
        /// Say nothing but the images' names.
        quiet: bool { default: Some("false"), short: Some('q') },
        /// Keep images below this directory instead of /var/lib/podkit.
        state_dir: Option<PathBuf> {},
    }
}

podkit_foundation::params! {
    /// What `image ls` takes.
    pub(crate) struct ListParams {
        /// Form of the output.
        output: Form { default: Some("text"), short: Some('o') },
        /// Only the images' ids.
        quiet: bool { default: Some("false"), short: Some('q') },
        /// Look below this directory instead of /var/lib/podkit.
        state_dir: Option<PathBuf> {},
    }
}

podkit_foundation::params! {
    /// What `image inspect` takes.
    pub(crate) struct InspectParams {
        /// For this platform instead of the machine's.
        platform: Option<String> {},
        /// Look below this directory instead of /var/lib/podkit.
        state_dir: Option<PathBuf> {},
    }
}

podkit_foundation::params! {
    /// What `image rm` and `image prune` take.
    pub(crate) struct RemoveParams {
        /// Look below this directory instead of /var/lib/podkit.
        state_dir: Option<PathBuf> {},
    }
}

podkit_foundation::params! {
    /// What `image prune` takes.
    pub(crate) struct PruneParams {
        /// All images that no running pod uses, not only those without a name.
        all: bool { default: Some("false"), short: Some('a') },
        /// Look below this directory instead of /var/lib/podkit.
        state_dir: Option<PathBuf> {},
    }
}

/// The command with its own.
pub(crate) fn command() -> Command {
    let images = |name: &'static str, help: &'static str| {
        Arg::new("images")
            .value_name(name)
            .num_args(1..)
            .required(true)
            .help(help)
    };
    let with = cli::with_params;
    Command::new("image")
        .about("The image store: pull, load, ls, inspect, rm, prune, build")
        .subcommand_required(true)
        .disable_help_subcommand(true)
        .subcommand(
            with(Command::new("pull"), PullParams::PARAMS)
                .about("Pull images from a registry, or from oci:DIR, docker-archive:FILE, docker-daemon:IMAGE")
                .arg(images("IMAGE", "Such as nginx:1.27, ghcr.io/org/app@sha256:…, oci:DIR[:TAG]")),
        )
        .subcommand(
            with(Command::new("load"), LoadParams::PARAMS)
                .about("Load what docker save, podman save or skopeo wrote, packed or not")
                .arg(images("FILE", "A docker-archive or an OCI archive; - is standard input")),
        )
        .subcommand(
            with(Command::new("ls"), ListParams::PARAMS)
                .about("List the images; SIZE is what a pull moves"),
        )
        .subcommand(
            with(Command::new("inspect"), InspectParams::PARAMS)
                .about("Show everything about images, their labels among it, as JSON")
                .arg(images("IMAGE", "A name, a digest, an id, oci:DIR, docker-archive:FILE or docker://IMAGE")),
        )
        .subcommand(
            with(Command::new("rm"), RemoveParams::PARAMS)
                .about("Remove images that no running pod uses")
                .arg(images("IMAGE", "A name, a digest or an id")),
        )
        .subcommand(
            with(Command::new("prune"), PruneParams::PARAMS)
                .about("Remove images without a name, and what killed pulls left"),
        )
        .subcommand(crate::build::command())
}

/// `podkit image COMMAND`.
pub(crate) fn image(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let (name, matches) = matches.subcommand().expect("the command line requires one");
    if ["pull", "load", "rm", "prune"].contains(&name) {
        // Layers have owners, which exist for others than root in a user namespace only. While this process has one thread.
        podkit_pod::sandbox::enter_user_namespace()
            .map_err(|error| Failure::Runtime(error.to_string()))?;
    }
    match name {
        "pull" => pull(matches),
        "load" => load(matches),
        "ls" => list(matches),
        "inspect" => inspect(matches),
        "rm" => {
            let params = RemoveParams::from_values(&cli::values(RemoveParams::PARAMS, matches))?;
            let store = Store::new(params.state_dir.as_deref());
            tell(
                &store
                    .remove(&given(matches))
                    .map_err(|error| Failure::Runtime(error.to_string()))?,
            )
        }
        "prune" => {
            let params = PruneParams::from_values(&cli::values(PruneParams::PARAMS, matches))?;
            let store = Store::new(params.state_dir.as_deref());
            let removed = store.prune(params.all);
            let removed = removed.map_err(|error| Failure::Runtime(error.to_string()))?;
            tell(&removed)?;
            cli::print(&format!("Total reclaimed space: {}\n", size(removed.bytes)))
        }
        "build" => crate::build::build(matches),
        other => unreachable!("clap knows no command {other}"),
    }
}

fn given(matches: &ArgMatches) -> Vec<String> {
    matches
        .get_many::<String>("images")
        .into_iter()
        .flatten()
        .cloned()
        .collect()
}

fn platform(text: Option<&str>) -> Result<Platform, Failure> {
    match text {
        None => Ok(Platform::host()),
        Some(text) => text
            .parse()
            .map_err(|why: String| ParamError::new("platform", why).into()),
    }
}

/// A name of a registry, or a place with its transport.
pub(crate) fn location(text: &str) -> Result<Location, Failure> {
    let here = std::path::Path::new("");
    let usage = |error: &dyn std::fmt::Display| Failure::Usage(error.to_string());
    match Location::parse(text, here) {
        Some(location) => location.map_err(|error| usage(&error)),
        None => {
            let reference = text.parse::<Reference>();
            let reference = reference.map_err(|error| usage(&format!("{text:?}: {error}")))?;
            Ok(Location::Registry(reference.with_default_tag()))
        }
    }
}

fn pull(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let params = PullParams::from_values(&cli::values(PullParams::PARAMS, matches))?;
    let store = Store::new(params.state_dir.as_deref());
    let platform = platform(params.platform.as_deref())?;
    let locations: Vec<Location> = given(matches)
        .iter()
        .map(|text| location(text))
        .collect::<Result<_, _>>()?;
    for location in locations {
        let name = location.to_string();
        let wanted = Wanted {
            platform: platform.clone(),
            authfile: params.authfile.clone(),
            ..Wanted::new(location.clone(), PullPolicy::Always)
        };
        let progress = progress::of(&name, params.quiet);
        let image = store.ensure_blocking(&wanted, &*progress);
        progress.end();
        let image = image.map_err(|error| Failure::Runtime(error.to_string()))?;
        let line = match location.reference() {
            Some(reference) => format!("{}@{}\n", reference.name(), image.digest),
            None => format!("{}\n", image.id),
        };
        cli::print(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn load(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let params = LoadParams::from_values(&cli::values(LoadParams::PARAMS, matches))?;
    let store = Store::new(params.state_dir.as_deref());
    let platform = platform(params.platform.as_deref())?;
    for file in given(matches) {
        let progress = progress::of(&file, params.quiet);
        let loaded = store.load(std::path::Path::new(&file), &platform, &*progress);
        progress.end();
        let mut text = String::new();
        for image in loaded.map_err(|error| Failure::Runtime(error.to_string()))? {
            for name in &image.names {
                text += &format!("Loaded image: {}\n", name.familiar());
            }
            if image.names.is_empty() {
                text += &format!("Loaded image ID: {}\n", image.id);
            }
        }
        cli::print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let params = ListParams::from_values(&cli::values(ListParams::PARAMS, matches))?;
    let store = Store::new(params.state_dir.as_deref());
    let images = store.list(&Platform::host());
    let images = images.map_err(|error| Failure::Runtime(error.to_string()))?;
    if params.quiet {
        let ids = images.iter().filter_map(|image| image.id.as_ref());
        let lines: String = ids.map(|id| format!("{}\n", id.short())).collect();
        return cli::print(&lines);
    }
    if params.output == Form::Json {
        let all: Vec<Value> = images.iter().map(as_json).collect();
        return cli::print(&format!("{:#}\n", Value::from(all)));
    }
    let wide = params.output == Form::Wide;
    let mut rows: Vec<Vec<String>> = vec![
        ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]
            .map(str::to_owned)
            .into(),
    ];
    if wide {
        rows[0].extend(["PLATFORM", "DIGEST", "USED"].map(str::to_owned));
    }
    for image in &images {
        let none = || "<none>".to_owned();
        let name = image.name.as_ref();
        let repository = name
            .map(Reference::familiar_name)
            .or_else(|| image.source.clone());
        let mut row = vec![
            repository.unwrap_or_else(none),
            name.and_then(Reference::tag)
                .map_or_else(none, str::to_owned),
            image
                .id
                .as_ref()
                .map_or_else(none, |id| id.short().to_owned()),
            image
                .created
                .as_deref()
                .map_or_else(|| "N/A".to_owned(), ago),
            image.size_bytes.map_or_else(|| "-".to_owned(), size),
        ];
        if wide {
            row.push(
                image
                    .platform
                    .as_ref()
                    .map_or_else(none, ToString::to_string),
            );
            row.push(image.digest.to_string());
            row.push(if image.used { "yes" } else { "no" }.to_owned());
        }
        rows.push(row);
    }
    cli::print(&table(&rows))
}

/// Columns as wide as their widest, three spaces apart.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("   ");
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}

fn as_json(image: &Listed) -> Value {
    json!({
        "name": image.name.as_ref().map(ToString::to_string),
        "source": image.source,
        "digest": image.digest.to_string(),
        "id": image.id.as_ref().map(ToString::to_string),
        "created": image.created,
        "platform": image.platform.as_ref().map(ToString::to_string),
        "size": image.size_bytes,
        "used": image.used,
    })
}

fn inspect(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let params = InspectParams::from_values(&cli::values(InspectParams::PARAMS, matches))?;
    let store = Store::new(params.state_dir.as_deref());
    let platform = platform(params.platform.as_deref())?;
    let here = std::path::Path::new("");
    let mut all = Vec::new();
    for image in given(matches) {
        let inspected = match Location::parse(&image, here) {
            None => store
                .inspect(&image, &platform)
                .map_err(|error| error.to_string()),
            Some(location) => {
                let location = location.map_err(|error| Failure::Usage(error.to_string()))?;
                store
                    .inspect_remote(&location, &platform)
                    .map_err(|error| error.to_string())
            }
        };
        let inspected = inspected.map_err(Failure::Runtime)?;
        let layers: Vec<Value> = inspected
            .manifest
            .layers
            .iter()
            .map(|layer| json!({ "digest": layer.digest.to_string(), "size": layer.size, "mediaType": layer.media_type }))
            .collect();
        all.push(json!({
            "names": inspected.names,
            "digest": inspected.digest.to_string(),
            "manifestDigest": inspected.manifest_digest.to_string(),
            "id": inspected.manifest.config.digest.to_string(),
            "created": inspected.config.created,
            "platform": inspected.config.platform().to_string(),
            "size": inspected.size_bytes,
            "labels": inspected.config.config.as_ref().and_then(|config| config.labels.clone()).unwrap_or_default(),
            "config": inspected.config_json["config"],
            "history": inspected.config_json["history"],
            "diffIds": inspected.config.rootfs.diff_ids.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "layers": layers,
            "annotations": inspected.manifest.annotations,
        }));
    }
    cli::print(&format!("{:#}\n", Value::from(all)))
}

fn tell(removed: &Removed) -> Result<ExitCode, Failure> {
    let untagged = removed
        .untagged
        .iter()
        .map(|name| format!("Untagged: {name}\n"));
    let deleted = removed
        .deleted
        .iter()
        .map(|digest| format!("Deleted: {digest}\n"));
    cli::print(&untagged.chain(deleted).collect::<String>())
}

/// As docker has it: powers of a thousand, three digits.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB"].iter();
    let mut unit = units.next().unwrap_or(&"B");
    while value >= 1000.0 {
        let Some(next) = units.next() else { break };
        (value, unit) = (value / 1000.0, next);
    }
    let digits = match value {
        _ if *unit == "B" => 0,
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}{unit}")
}

/// `3 weeks ago`.
fn ago(created: &str) -> String {
    let Ok(time) = humantime::parse_rfc3339_weak(created) else {
        return created.to_owned();
    };
    let age = SystemTime::now()
        .duration_since(time)
        .unwrap_or(Duration::ZERO)
        .as_secs();
    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;
    let (count, unit) = match age {
        0..60 => (age, "second"),
        60..HOUR => (age / 60, "minute"),
        HOUR..172_800 => (age / HOUR, "hour"),
        172_800..1_209_600 => (age / DAY, "day"),
        1_209_600..5_184_000 => (age / (7 * DAY), "week"),
        5_184_000..63_072_000 => (age / (30 * DAY), "month"),
        _ => (age / (365 * DAY), "year"),
    };
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{s} ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages() {
        assert_eq!(size(0), "0B");
        assert_eq!(size(999), "999B");
        assert_eq!(size(1_500), "1.50kB");
        assert_eq!(size(142_345_678), "142MB");
        assert_eq!(size(14_234_567_890), "14.2GB");
        let at = |seconds| {
            let time = SystemTime::now() - Duration::from_secs(seconds);
            ago(&humantime::format_rfc3339(time).to_string())
        };
        assert_eq!(at(90), "1 minute ago");
        assert_eq!(at(3 * 24 * 3600), "3 days ago");
        assert_eq!(at(3 * 365 * 24 * 3600), "3 years ago");
        assert_eq!(ago("1970-01-01T00:00:00Z").split(' ').nth(1), Some("years"));
        assert_eq!(ago("yesterday"), "yesterday");
    }

    #[test]
    fn tables() {
        let rows = vec![
            vec!["A".into(), "LONG".into()],
            vec!["wide one".into(), "x".into()],
        ];
        assert_eq!(table(&rows), "A          LONG\nwide one   x\n");
    }
}
