//! The engine under readers that loop, and killed at any moment.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, Mode as Bits, OFlags, openat};
use tempfile::TempDir;

use super::tests::params;
use super::*;

/// A set whose files must all say the same.
const NAMES: [&str; 4] = ["a", "b", "d/c", "d/e"];

fn fill(dir: &Path, version: usize) {
    fs::create_dir(dir.join("d")).unwrap();
    for name in NAMES {
        fs::write(
            dir.join(name),
            format!("{version} {}", "x".repeat(version % 200)),
        )
        .unwrap();
    }
}

fn places(dir: &Path) -> [Place; 3] {
    [
        Place::Data(dir.join("data")),
        Place::Link {
            root: dir.join("root"),
            link: dir.join("root/live"),
        },
        Place::InPlace(dir.join("in-place")),
    ]
}

fn open(place: &Place, flags: &[(&str, &str)]) -> Engine {
    let settings = PublishSettings {
        place: place.clone(),
        params: params(flags),
    };
    Engine::open(settings).unwrap()
}

/// What the directory that people look at has now, all of one version, or what is wrong with it.
fn look(place: &Place) -> Result<Option<String>, String> {
    let root = match place {
        Place::Data(dir) => dir.join("..data"),
        other => other.path().to_owned(),
    };
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let dir: OwnedFd = match openat(CWD, &root, flags, Bits::empty()) {
        Ok(dir) => dir,
        Err(_) => return Ok(None),
    };
    let read = |name: &str| {
        let mut text = String::new();
        let file = openat(&dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Bits::empty());
        let mut file = File::from(file.map_err(|error| format!("{name}: {error}"))?);
        file.read_to_string(&mut text)
            .map_err(|error| format!("{name}: {error}"))?;
        Ok::<String, String>(text)
    };
    // What was withdrawn in place leaves an empty directory.
    let nothing = |entries: fs::ReadDir| entries.count() == 0;
    if matches!(place, Place::InPlace(_)) && fs::read_dir(&root).is_ok_and(nothing) {
        return Ok(None);
    }
    let first = read(NAMES[0])?;
    for name in &NAMES[1..] {
        let other = read(name)?;
        if other != first {
            return Err(format!("{name} is of {other:?}, {} of {first:?}", NAMES[0]));
        }
    }
    let version: usize = first
        .split(' ')
        .next()
        .unwrap_or_default()
        .parse()
        .map_err(|_| first.clone())?;
    match first == format!("{version} {}", "x".repeat(version % 200)) {
        true => Ok(Some(version.to_string())),
        false => Err(format!("cut: {first:?}")),
    }
}

/// Of each form; over all forms more than 1,000, and looks more than 100,000.
const PUBLISHES: usize = 334;
const LOOKS: usize = 33_334;

/// A reader that opens the directory once sees one version, whole, however often it looks. Versions that it may still hold are
/// kept.
#[test]
fn no_reader_sees_half_a_set() {
    let dir = TempDir::new().unwrap();
    for place in places(dir.path()) {
        let mut engine = open(&place, &[("keep", "1000")]);
        let stage = |engine: &mut Engine, version| {
            let staged = engine.stage().unwrap();
            fill(staged.path(), version);
            engine.publish(staged, "v").unwrap();
        };
        stage(&mut engine, 0);
        let (done, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) || looks.load(Ordering::Relaxed) < LOOKS {
                    let seen = look(&place).unwrap_or_else(|why| panic!("{place:?}: {why}"));
                    assert!(seen.is_some(), "{place:?}: nothing there");
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            });
            for version in 1..=PUBLISHES {
                stage(&mut engine, version);
                assert!(!reader.is_finished(), "the reader found something");
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(look(&place), Ok(Some(PUBLISHES.to_string())));
    }
}

/// The variable that makes [`victim`] one.
const VICTIM: &str = "PUBLISH_VICTIM";

/// Publishes without end, one form after the other, until it is killed. A test of its own does nothing.
#[test]
fn victim() {
    let Some(dir) = std::env::var_os(VICTIM) else {
        return;
    };
    let dir = PathBuf::from(dir);
    let number = fs::read_to_string(dir.join("form")).unwrap();
    let place = places(&dir)[number.parse::<usize>().unwrap()].clone();
    // Every third is refused after it was seen.
    let tree = match &place {
        Place::Data(dir) => dir.join("..data"),
        other => other.path().to_owned(),
    };
    let confirm = format!(
        "exec:sh -c '! grep -q \"^[0-9]*[147] \" {}/a'",
        tree.display()
    );
    let flags = [("confirm", confirm.as_str()), ("confirm-timeout", "100ms")];
    let confirmed = dir.join("confirm").exists();
    let mut engine = open(&place, if confirmed { &flags } else { &[] });
    drop(engine.resume());
    for version in 1.. {
        let staged = engine.stage().unwrap();
        fill(staged.path(), version);
        drop(engine.publish(staged, "v"));
    }
}

/// SIGKILL at 500 moments: what people look at is whole, before and after the next process has ended what the last began.
#[test]
fn a_kill_at_any_moment_leaves_a_whole_set() {
    let dir = TempDir::new().unwrap();
    let mut seen = 0;
    for kill in 0..500_u64 {
        let form = (kill % 3) as usize;
        let place = places(dir.path())[form].clone();
        fs::write(dir.path().join("form"), form.to_string()).unwrap();
        match kill % 2 {
            0 => fs::write(dir.path().join("confirm"), "").unwrap(),
            _ => drop(fs::remove_file(dir.path().join("confirm"))),
        }
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "publish::faults::victim"])
            .env(VICTIM, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        // Another moment each time, the first ones in the middle of opening.
        std::thread::sleep(Duration::from_micros(2_000 + kill * 7_919 % 60_000));
        assert!(
            victim.try_wait().unwrap().is_none(),
            "the victim ended by itself"
        );
        victim.kill().unwrap();
        victim.wait().unwrap();
        let left = look(&place).unwrap_or_else(|why| panic!("kill {kill}, {place:?}: {why}"));
        seen += usize::from(left.is_some());
        // The confirmation may still run; it only reads.
        let engine = open(&place, &[]);
        let settled =
            look(&place).unwrap_or_else(|why| panic!("kill {kill}, {place:?} reopened: {why}"));
        let current = engine.current();
        assert_eq!(
            settled.is_some(),
            current.is_some(),
            "kill {kill}, {place:?}: {current:?}"
        );
        let store = place.store();
        for entry in fs::read_dir(store).unwrap() {
            let name = entry.unwrap().file_name();
            let name = name.to_str().unwrap();
            let known = ["lock", "current", "current.new", "journal.new"].contains(&name);
            assert!(
                known || name.ends_with("-v"),
                "kill {kill}, {place:?}: {name} is left"
            );
        }
    }
    assert!(seen > 250, "only {seen} of 500 had published anything");
}
