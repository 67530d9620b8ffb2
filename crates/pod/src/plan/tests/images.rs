//! Where programs come from, and what host paths give away.

use std::path::{Path, PathBuf};

use super::{container, errors, plan};
use crate::manifest::Severity;
use crate::plan::host::{Owning, owning};
use crate::plan::{ImageSource, Options};

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
fn other_images_say_how_to_map_them() {
    let only = |name: &str| errors(&image(name), &Options::default()).join("\n");
    assert_eq!(
        only("nginx:1.27"),
        "7:12: spec.containers[0].image: images are not pulled in this version; say what stands for \"nginx:1.27\": \
         --image app=host, --image app=rootfs:DIR, or the annotation podkit.dev/image.app"
    );
    assert!(
        only("x/podkit:9.9").contains("this podkit is ")
            && only("x/podkit:9.9").contains("not 9.9")
    );
    assert!(only("podkit@sha256:abc").contains("an image by digest is not this binary"));
    assert!(only("mypodkit").contains("say what stands for"));
    assert!(only("podkit/tool").contains("say what stands for"));
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
        "--image: app=hots: \"hots\" is none of podkit, host, rootfs:DIR; did you mean host?"
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
    let (documents, findings) = crate::manifest::load(std::slice::from_ref(&file));
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
