//! Variables out of files that containers wrote.

use super::*;
use crate::plan::FileKey;

struct World {
    dir: tempfile::TempDir,
    volumes: Volumes,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let empty = || VolumeKind::EmptyDir { limit_bytes: None };
    let plan = pod(vec![("made", empty()), ("other", empty())]);
    let (base, claims) = (dir.path().join("v"), dir.path().join("claims"));
    let volumes = Volumes::prepare(&plan, &base, &claims).unwrap();
    World { dir, volumes }
}

impl World {
    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("v").join(path)
    }

    fn value(&self, path: &str, optional: bool) -> Result<Option<String>, String> {
        let wanted = FileKey {
            volume: "made".into(),
            path: path.into(),
            key: "K".into(),
            optional,
        };
        let value = self.volumes.env_value(&wanted);
        value.map_err(|error| {
            let text = error.to_string();
            let head =
                format!("environment variable key \"K\" of the file {path:?} in volume made: ");
            text.strip_prefix(&head).map(str::to_owned).unwrap_or(text)
        })
    }

    #[track_caller]
    fn refused(&self, path: &str, why: &str) {
        for optional in [false, true] {
            assert_eq!(self.value(path, optional), Err(why.to_owned()), "{path}");
        }
    }
}

#[test]
fn a_key_of_a_file() {
    let world = world();
    fs::create_dir(world.path("made/d")).unwrap();
    fs::write(world.path("made/d/f.env"), "A='1'\nK='2'\n").unwrap();
    assert_eq!(world.value("d/f.env", false), Ok(Some("2".into())));
    symlink("d/f.env", world.path("made/link")).unwrap();
    assert_eq!(world.value("link", false), Ok(Some("2".into())));
}

#[test]
fn what_is_missing_is_an_error_unless_it_is_optional() {
    let world = world();
    const NO_KEY: &str = "the file has no such key, or its value is empty";
    fs::write(world.path("made/f"), "A='1'\n").unwrap();
    fs::write(world.path("made/empty"), "K=''\n").unwrap();
    fs::write(world.path("made/space"), "K= 'x'\nK='2'\n").unwrap();
    for (path, why) in [
        ("f", NO_KEY),
        ("empty", NO_KEY),
        ("space", NO_KEY),
        ("none", "there is no such file"),
        ("f/below", "there is no such file"),
    ] {
        assert_eq!(world.value(path, false), Err(why.into()));
        assert_eq!(world.value(path, true), Ok(None));
    }
}

#[test]
fn what_is_not_a_file_of_the_volume_is_refused() {
    let world = world();
    let secret = world.dir.path().join("secret");
    fs::write(&secret, "K='s'").unwrap();
    fs::write(world.path("other/f"), "K='o'").unwrap();
    symlink(&secret, world.path("made/absolute")).unwrap();
    symlink("../other/f", world.path("made/up")).unwrap();
    symlink("/", world.path("made/root")).unwrap();
    for path in ["absolute", "up", "root/etc/passwd"] {
        world.refused(path, "the path leads out of the volume");
    }
    fs::create_dir(world.path("made/dir")).unwrap();
    let _listener = UnixListener::bind(world.path("made/socket")).unwrap();
    // Opened for reading it would wait for a writer.
    rustix::fs::mknodat(
        CWD,
        world.path("made/pipe"),
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o666),
        0,
    )
    .unwrap();
    for path in ["dir", "socket", "pipe"] {
        world.refused(path, "it is not a regular file");
    }
}

#[test]
fn sizes_are_bounded() {
    let world = world();
    let fits = "x".repeat(32 * 1024);
    fs::write(world.path("made/fits"), format!("K='{fits}'")).unwrap();
    assert_eq!(world.value("fits", false), Ok(Some(fits.clone())));
    fs::write(world.path("made/long"), format!("K='{fits}x'")).unwrap();
    world.refused(
        "long",
        "the value has 32769 bytes, and may have at most 32768",
    );
    fs::write(world.path("made/huge"), vec![b'\n'; 64 * 1024 + 1]).unwrap();
    world.refused("huge", "the file has more than 65536 bytes");
}

#[test]
fn what_can_be_no_variable_is_refused() {
    let world = world();
    fs::write(world.path("made/nul"), "K='a\0b'").unwrap();
    world.refused(
        "nul",
        "the value has a NUL byte, which can't be in a variable",
    );
    fs::write(world.path("made/bytes"), b"K='\xff'").unwrap();
    world.refused("bytes", "the file is not UTF-8 text");
    fs::write(world.path("made/shell"), "\nexport K=v\n").unwrap();
    world.refused(
        "shell",
        "invalid environment variable format at line 2: value must be enclosed in single quotes",
    );
}
