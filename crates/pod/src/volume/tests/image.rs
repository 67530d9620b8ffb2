//! Volumes with the file systems of images.

use super::*;
use crate::image::Location;
use crate::plan::{PodSecurity, PullPolicy};

fn image_volume() -> VolumeKind {
    VolumeKind::Image {
        image: "r.example/data:1".into(),
        location: Location::Registry("r.example/data:1".parse().unwrap()),
        pull: PullPolicy::IfNotPresent,
    }
}

/// A layer of files; one with an empty text hides what is below it.
fn layer(dir: &Path, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let root = dir.join(name);
    fs::create_dir(&root).unwrap();
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if text.is_empty() {
            let kind = rustix::fs::FileType::CharacterDevice;
            rustix::fs::mknodat(CWD, &path, kind, Mode::empty(), 0).unwrap();
        } else {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    root
}

fn prepare(dir: &Path) -> Volumes {
    let plan = PodPlan {
        security: PodSecurity {
            fs_group: Some(1234),
            ..PodSecurity::default()
        },
        ..pod(vec![("data", image_volume())])
    };
    Volumes::prepare(&plan, &dir.join("v"), &dir.join("claims")).unwrap()
}

#[test]
fn the_layers_of_an_image_are_one_tree_that_nobody_changes() {
    with_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let low = layer(
            dir.path(),
            "low",
            &[
                ("a/one", "1"),
                ("a/two", "2"),
                ("gone", "x"),
                ("tool", "#!/bin/sh\n"),
            ],
        );
        let high = layer(dir.path(), "high", &[("a/two", "22"), ("gone", "")]);
        fs::set_permissions(&high, fs::Permissions::from_mode(0o750)).unwrap();
        let mut volumes = prepare(dir.path());
        volumes
            .mount_image("data", &[high.clone(), low.clone()], false)
            .unwrap();
        // Once is enough.
        volumes.mount_image("data", &[high, low], false).unwrap();
        let top = dir.path().join("v/data");
        let text = |path: &str| fs::read_to_string(top.join(path)).unwrap();
        assert_eq!((text("a/one"), text("a/two")), ("1".into(), "22".into()));
        assert!(!top.join("gone").exists());
        assert_eq!(group_and_mode(&top), (0, 0o750), "fsGroup changes nothing");
        let refused = fs::write(top.join("new"), "").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
        let refused = std::process::Command::new(top.join("tool")).status();
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(volumes.source(&at("data", None)).unwrap().read_only);

        // A directory of it.
        let source = volumes.source(&at("data", Some("a"))).unwrap();
        assert_eq!(path_of(&source), top.join("a"));
        for missing in ["none", "a/one", "a/none", "tool"] {
            let error = volumes.source(&at("data", Some(missing))).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "subPath {missing:?} of volume data: the image has no such directory, and nothing else of an image is mounted"
                )
            );
        }
        volumes.remove().unwrap();
        assert!(!dir.path().join("v").exists());
        assert!(dir.path().join("low/a/two").exists());
    });
}

#[test]
fn links_of_an_image_lead_nowhere_else() {
    with_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let only = layer(dir.path(), "only", &[("a/one", "1")]);
        symlink("/etc", only.join("etc")).unwrap();
        symlink("../../../..", only.join("up")).unwrap();
        symlink("a", only.join("inside")).unwrap();
        let mut volumes = prepare(dir.path());
        volumes.mount_image("data", &[only], false).unwrap();
        for link in ["etc", "up"] {
            let error = volumes.source(&at("data", Some(link))).unwrap_err();
            assert!(matches!(error, VolumeError::Escape { .. }), "{error}");
        }
        volumes.source(&at("data", Some("inside"))).unwrap();
        volumes.remove().unwrap();
    });
}

#[test]
fn what_one_layer_hides_is_not_there_and_no_layer_is_empty() {
    with_mounts(|| {
        let dir = tempfile::tempdir().unwrap();
        let only = layer(dir.path(), "only", &[("one", "1"), ("gone", "")]);
        let mut volumes = prepare(dir.path());
        volumes.mount_image("data", &[only], false).unwrap();
        let names = |volumes: &Volumes| {
            let path = path_of(&volumes.source(&at("data", None)).unwrap());
            let names = fs::read_dir(path).unwrap();
            let mut names: Vec<_> = names.map(|one| one.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&volumes), ["one"]);
        volumes.remove().unwrap();
        let mut volumes = prepare(dir.path());
        volumes.mount_image("data", &[], false).unwrap();
        assert_eq!(names(&volumes), [] as [&str; 0]);
        volumes.remove().unwrap();
        let error = volumes.mount_image("data", &[], false).unwrap_err();
        assert!(matches!(error, VolumeError::Unknown { .. }), "{error}");
    });
}
