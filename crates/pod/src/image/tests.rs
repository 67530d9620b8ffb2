use std::os::unix::fs::PermissionsExt;

use super::*;

fn plan(source: ImageSource, command: &[&str], args: &[&str]) -> ContainerPlan {
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    ContainerPlan {
        image: "example/app:1".into(),
        command: words(command),
        args: words(args),
        ..ContainerPlan::new("app", source)
    }
}

#[track_caller]
fn check(config: &ImageConfig, command: &[&str], args: &[&str], expected: Option<&[&str]>) {
    let image = Image {
        root: Root::Host,
        config: config.clone(),
    };
    let argv = image.argv(&plan(ImageSource::Host, command, args));
    match expected {
        Some(expected) => assert_eq!(argv.unwrap(), expected),
        None => assert_eq!(
            argv.unwrap_err().to_string(),
            "container app: no command, and the image example/app:1 has no entrypoint: set `command`"
        ),
    }
}

/// The table of the Kubernetes documentation, "Define a Command and Arguments for a Container".
#[test]
fn command_and_arguments() {
    let config = ImageConfig {
        entrypoint: vec!["/ep".into()],
        cmd: vec!["foo".into(), "bar".into()],
        ..ImageConfig::default()
    };
    check(&config, &[], &[], Some(&["/ep", "foo", "bar"]));
    check(&config, &["/ep-2"], &[], Some(&["/ep-2"]));
    check(&config, &[], &["zoo"], Some(&["/ep", "zoo"]));
    check(
        &config,
        &["/ep-2"],
        &["zoo", "boo"],
        Some(&["/ep-2", "zoo", "boo"]),
    );
    let nothing = ImageConfig::default();
    check(&nothing, &[], &[], None);
    check(&nothing, &["nginx"], &["-t"], Some(&["nginx", "-t"]));
    check(&nothing, &[], &["nginx"], Some(&["nginx"]));
}

#[test]
fn podkit_is_its_own_entrypoint() {
    let plan = plan(ImageSource::Itself, &[], &["tls"]);
    let image = resolve(&plan, Path::new("/nowhere"), None).unwrap();
    assert_eq!(image.root, Root::Itself);
    assert_eq!(image.argv(&plan).unwrap(), ["/podkit", "tls"]);
    assert_eq!(image.working_dir(&plan), None);
}

#[test]
fn the_container_wins_over_the_image() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let config = ImageConfig {
        env: vec![pair("A", "image"), pair("B", "image")],
        working_dir: Some("/image".into()),
        ..ImageConfig::default()
    };
    let image = Image {
        root: Root::Host,
        config,
    };
    let mut plan = plan(ImageSource::Host, &["x"], &[]);
    assert_eq!(image.working_dir(&plan), Some("/image".into()));
    plan.env = vec![pair("B", "file"), pair("C", "file")];
    plan.working_dir = Some("/file".into());
    assert_eq!(
        image.env(&plan),
        [pair("A", "image"), pair("B", "file"), pair("C", "file")]
    );
    assert_eq!(image.working_dir(&plan), Some("/file".into()));
}

#[test]
fn a_directory_gets_fresh_layers_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let (lower, scratch) = (dir.path().join("image"), dir.path().join("state/app"));
    std::fs::create_dir(&lower).unwrap();
    std::fs::set_permissions(&lower, std::fs::Permissions::from_mode(0o711)).unwrap();
    let plan = plan(ImageSource::Rootfs(lower.clone()), &["sh"], &[]);
    let Root::Overlay {
        lowers,
        upper,
        work,
        ..
    } = resolve(&plan, &scratch, None).unwrap().root
    else {
        panic!("not an overlay")
    };
    assert_eq!(lowers, [lower.canonicalize().unwrap()]);
    assert_eq!(
        upper.metadata().unwrap().permissions().mode() & 0o777,
        0o711
    );
    assert!(work.is_dir());
    std::fs::write(upper.join("written"), "by an earlier run").unwrap();
    resolve(&plan, &scratch, None).unwrap();
    assert!(!upper.join("written").exists());
}

#[test]
fn what_is_no_image_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = |rootfs: &Path, scratch: &Path| {
        let plan = plan(ImageSource::Rootfs(rootfs.to_owned()), &["sh"], &[]);
        resolve(&plan, scratch, None).unwrap_err().to_string()
    };
    let scratch = dir.path().join("scratch");
    let gone = dir.path().join("gone");
    assert_eq!(
        error(&gone, &scratch),
        format!(
            "container app: the root file system {}: No such file or directory (os error 2)",
            gone.display()
        )
    );
    assert_eq!(
        error(&file, &scratch),
        format!(
            "container app: the root file system {}: not a directory",
            file.display()
        )
    );
    let inside = error(dir.path(), &scratch);
    assert!(
        inside.contains("it contains ") && inside.contains("where the container's writes go"),
        "{inside}"
    );
    let error = error(&dir.path().join("."), &file.join("below"));
    assert!(error.starts_with("container app: prepare "), "{error}");
}

/// A program that names a loader would not start alone in an image; neither would what is no program.
#[test]
fn an_image_is_made_of_a_static_binary_only() {
    let dir = tempfile::tempdir().unwrap();
    let binary = dir.path().join("program");
    // An ELF header of 64 bytes, and program headers of 56 of these types behind it. (elf(5))
    let elf = |types: &[u8]| {
        let mut bytes = vec![0; 64 + 56 * types.len()];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = types.len() as u8;
        for (number, kind) in types.iter().enumerate() {
            bytes[64 + 56 * number] = *kind;
        }
        bytes
    };
    let build = |program: &[u8]| {
        std::fs::write(&binary, program).unwrap();
        Built::new(&Recipe {
            binary: binary.clone(),
            labels: [].into(),
            exposed_ports: [].into(),
        })
    };
    const LOAD: u8 = 1;
    const INTERP: u8 = 3;
    assert!(build(&elf(&[LOAD, LOAD])).is_ok());
    for program in [elf(&[LOAD, INTERP]), b"#!/bin/sh\n".to_vec(), Vec::new()] {
        let refused = build(&program).err().unwrap();
        assert!(matches!(refused, BuildError::NotStatic), "{refused}");
    }
}
