//! Where programs come from, and what host paths give away.

use std::path::{Path, PathBuf};

use super::{container, errors, plan};
use crate::manifest::Severity;
use crate::plan::host::{Owning, owning};
use crate::plan::{ImageSource, Location, Options};

fn image(name: &str) -> String {
    container("command: [x]", "").replace("image: podkit", &format!("image: {name:?}"))
}

fn options(image: &str) -> Options {
    Options {
        images: vec![("app".into(), image.into())],
        ..Options::default()
    }
}

#[test]
fn podkit_is_this_binary() {
    let version = podkit_foundation::VERSION;
    for name in [
        "podkit",
        "podkit:latest",
        "reg:5000/x/podkit",
        &format!("ghcr.io/o/podkit:{version}"),
    ] {
        let (plans, findings) = plan(&image(name), &Options::default());
        assert!(!findings.has_errors(), "{findings}");
        assert_eq!(plans[0].containers[0].source, ImageSource::Itself, "{name}");
    }
}

#[test]
fn other_images_are_pulled() {
    let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for (name, full) in [
        ("nginx", "docker.io/library/nginx:latest"),
        ("ghcr.io/o/app:1", "ghcr.io/o/app:1"),
        ("x/podkit:9.9", "docker.io/x/podkit:9.9"),
        ("mypodkit", "docker.io/library/mypodkit:latest"),
        ("podkit/tool", "docker.io/podkit/tool:latest"),
        (
            &format!("podkit@sha256:{hex}"),
            &format!("docker.io/library/podkit@sha256:{hex}"),
        ),
    ] {
        let (plans, findings) = plan(&image(name), &Options::default());
        assert!(!findings.has_errors(), "{findings}");
        let source = &plans[0].containers[0].source;
        let expected = Location::Registry(full.parse().unwrap());
        assert_eq!(*source, ImageSource::Image(expected), "{name}");
    }
    // What the API server takes and the kubelet calls InvalidImageName.
    assert_eq!(
        errors(&image("Ubuntu:22.04"), &Options::default()),
        [
            "7:12: spec.containers[0].image: couldn't parse image name \"Ubuntu:22.04\": invalid reference format: \
             repository name (Ubuntu) must be lowercase"
        ]
    );
}

#[test]
fn images_that_are_on_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap();
    let layout = format!("oci:{}", dir.path().display());
    let source = |text: &str| {
        let (plans, findings) = plan(&image("nginx"), &options(text));
        assert!(!findings.has_errors(), "{findings}");
        plans[0].containers[0].source.clone()
    };
    let wrong = |text: &str| errors(&image("nginx"), &options(text)).join("\n");
    assert!(wrong(&layout).contains("no OCI image layout"));
    std::fs::write(real.join("oci-layout"), "{}").unwrap();
    let (dir, tag) = (real.clone(), Some("v1".to_owned()));
    let expected = Location::Layout { dir, tag };
    assert_eq!(
        source(&format!("{layout}:v1")),
        ImageSource::Image(expected)
    );
    let file = real.join("a:b.tar");
    std::fs::write(&file, "").unwrap();
    let archive = format!("docker-archive:{}", file.display());
    let expected = Location::Archive { file, name: None };
    assert_eq!(source(&archive), ImageSource::Image(expected));
    let expected = Location::Daemon("nginx:1".parse().unwrap());
    assert_eq!(
        source("docker-daemon:nginx:1"),
        ImageSource::Image(expected)
    );
    assert!(wrong("oci:").contains("oci needs a directory behind the colon"));
    assert!(wrong("docker-archive:/no/such").contains("/no/such: No such file"));
    assert!(wrong("docker-daemon:NGINX").contains("must be lowercase"));
}

#[test]
fn options_and_annotations() {
    let source = |text: &str, options: &Options| {
        let (plans, findings) = plan(text, options);
        assert!(!findings.has_errors(), "{findings}");
        plans[0].containers[0].source.clone()
    };
    assert_eq!(source(&image("nginx"), &options("host")), ImageSource::Host);
    assert_eq!(
        source(&image("nginx"), &options("podkit")),
        ImageSource::Itself
    );
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap();
    let rootfs = format!("rootfs:{}", dir.path().display());
    assert_eq!(
        source(&image("nginx"), &options(&rootfs)),
        ImageSource::Rootfs(real)
    );
    let annotated = |value: &str| {
        image("nginx").replace("a/b: note", &format!("podkit.dev/image.app: {value:?}"))
    };
    assert_eq!(
        source(&annotated("host"), &Options::default()),
        ImageSource::Host
    );
    assert_eq!(
        source(&annotated("host"), &options("podkit")),
        ImageSource::Itself
    );

    let wrong = |text: &str, options: &Options| errors(text, options).join("\n");
    assert_eq!(
        wrong(&image("nginx"), &options("hots")),
        "--image: app=hots: \"hots\" is none of podkit, host, rootfs:DIR, oci:DIR, docker-archive:FILE, docker-daemon:IMAGE, docker://IMAGE; did you mean host?"
    );
    assert!(wrong(&image("nginx"), &options("rootfs:/no/such")).contains("/no/such: No such file"));
    assert!(wrong(&image("nginx"), &options("rootfs:/etc/passwd")).contains("is not a directory"));
    assert_eq!(
        wrong(&annotated("rootfs:"), &Options::default()),
        "3:77: metadata.annotations['podkit.dev/image.app']: rootfs: needs a directory behind the colon"
    );
    let other = image("podkit").replace("a/b: note", "podkit.dev/image.ap: host");
    assert!(
        wrong(&other, &Options::default())
            .ends_with("there is no container \"ap\"; did you mean app?")
    );
    let other = image("podkit").replace("a/b: note", "podkit.dev/imag.app: host");
    assert!(wrong(&other, &Options::default()).contains("unknown annotation"));
}

#[test]
fn a_directory_of_an_annotation_is_as_seen_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("root")).unwrap();
    let file = dir.path().join("pod.yaml");
    let text = image("nginx").replace("a/b: note", "podkit.dev/image.app: 'rootfs:root'");
    std::fs::write(&file, text).unwrap();
    let (documents, findings) = crate::manifest::load(
        std::slice::from_ref(&file),
        crate::manifest::NameSeed::default(),
    );
    assert!(!findings.has_errors(), "{findings}");
    let (plans, findings) = crate::plan::build(&documents, &Options::default(), &super::facts());
    assert!(!findings.has_errors(), "{findings}");
    let root: PathBuf = dir.path().canonicalize().unwrap().join("root");
    assert_eq!(plans[0].containers[0].source, ImageSource::Rootfs(root));
}

#[test]
fn options_that_name_no_container() {
    let wrong = |options: Options| errors(&image("podkit"), &options).join("\n");
    let images = vec![("ap".to_owned(), "host".to_owned())];
    assert_eq!(
        wrong(Options {
            images,
            ..Options::default()
        }),
        "--image: there is no container \"ap\"; did you mean app?"
    );
    assert_eq!(
        wrong(Options {
            without: vec!["tls".into()],
            ..Options::default()
        }),
        "--without: there is no container \"tls\"; there are app"
    );
    assert_eq!(
        wrong(Options {
            without: vec!["app".into()],
            ..Options::default()
        }),
        "--without: leaves the pod \"p\" without a container"
    );
}

#[test]
fn sources_without_an_entrypoint() {
    let bare = image("nginx").replace("    command: [x]\n", "");
    assert_eq!(
        errors(&bare, &options("host")),
        [
            "6:5: spec.containers[0].command: a command is missing: this image source has no entrypoint of its own"
        ]
    );
    let (_, findings) = plan(
        &image("podkit").replace("    command: [x]\n", ""),
        &Options::default(),
    );
    assert!(
        findings.to_string().contains("args names the module"),
        "{findings}"
    );
}

fn host_path(path: &str, mount: &str) -> String {
    let mounts = format!("command: [x]\nvolumeMounts: [{{name: v, mountPath: /m{mount}}}]");
    let volumes = format!("  volumes: [{{name: v, hostPath: {{path: {path}}}}}]\n");
    container(&mounts, &volumes)
}

#[test]
fn host_paths_that_own_the_machine() {
    let found = |text: &str, allow_privileged| {
        let options = Options {
            allow_privileged,
            ..Options::default()
        };
        plan(text, &options).1.to_string()
    };
    assert_eq!(
        found(&host_path("/etc", ""), false),
        "f:9:20: spec.containers[0].volumeMounts[0]: /etc of this machine, writable: whoever writes there owns the machine; --allow-privileged permits it\n"
    );
    assert_eq!(
        found(&host_path("/etc", ""), true),
        "f:9:20: risk: spec.containers[0].volumeMounts[0]: /etc of this machine: whoever writes there owns the machine\n"
    );
    assert_eq!(
        found(&host_path("/", ", readOnly: true"), false),
        "f:9:20: risk: spec.containers[0].volumeMounts[0]: reads / of this machine\n"
    );
    assert_eq!(
        found(&host_path("/srv/data", ""), false),
        "f:9:20: risk: spec.containers[0].volumeMounts[0]: reads and writes /srv/data of this machine\n"
    );
    // The part that is mounted counts.
    assert!(!found(&host_path("/", ", subPath: srv/data"), false).contains("owns"));
    assert!(found(&host_path("/", ", subPath: etc/cron.d"), false).contains("owns"));
    // Connecting is no write.
    assert!(
        found(
            &host_path("/var/run/docker.sock", ", readOnly: true"),
            false
        )
        .contains("--allow-privileged")
    );
}

#[test]
fn what_owns_the_machine() {
    let write = |path: &str| owning(Path::new(path)) == Some(Owning::Write);
    for path in [
        "/",
        "/etc",
        "/etc/cron.d",
        "/usr/local/bin",
        "/bin",
        "/sbin",
        "/lib",
        "/lib64/x",
        "/boot",
        "/root/.ssh",
        "/dev",
        "/proc/sys",
        "/sys",
        "/run",
        "/var",
        "/var/run",
        "/var/run/",
        "/var/lib",
        "/var/lib/docker/volumes",
        "/./etc",
        "//etc",
        "/home",
    ] {
        assert!(write(path), "{path}");
    }
    for path in [
        "/srv",
        "/srv/data",
        "/var/lib/postgresql",
        "/var/log",
        "/home/joe/site",
        "/opt/app",
        "/tmp",
        "/mnt/x",
        "/run/user/1000",
        "/etcetera",
    ] {
        assert_eq!(owning(Path::new(path)), None, "{path}");
    }
    assert_eq!(
        owning(Path::new("/var/run/docker.sock")),
        Some(Owning::Engine)
    );
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/etc", &link).unwrap();
    assert_eq!(owning(&link), Some(Owning::Write));
}

#[test]
fn programs_of_the_machine_are_a_risk() {
    let (_, findings) = plan(&image("nginx"), &options("host"));
    assert_eq!(findings.count(Severity::Risk), 1);
}
