//! git-sync when the machine fails it: killed at any moment, and on a disk that is full.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use podkit_testkit::git::{Repository, command};
use podkit_testkit::podkit::Module;
use podkit_testkit::process::{Stream, run};
use podkit_testkit::{Need, able, http, until};

use crate::git_sync::Ground;

/// The commits of so many versions, made in the bare repository: every file of one holds its number.
fn make_versions(app: &Repository, count: usize) -> Vec<String> {
    let mut stream = String::new();
    for version in 1..=count {
        stream += &format!("commit refs/heads/all\nmark :{version}\n");
        stream += &format!("committer Test <test@example.com> {version} +0000\ndata 0\n");
        for file in 0..20 {
            let (text, path) = (version.to_string(), format!("d{}/f{file}", file % 4));
            stream += &format!("M 100644 inline {path}\ndata {}\n{text}\n", text.len());
        }
    }
    let args = ["fast-import", "--quiet", "--export-marks=marks-of-the-test"];
    let mut import = command(&app.bare, &args)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = import.stdin.take().unwrap();
    input.write_all(stream.as_bytes()).unwrap();
    drop(input);
    assert!(import.wait().unwrap().success());
    let marks = fs::read_to_string(app.bare.join("marks-of-the-test")).unwrap();
    let mut commits = vec![String::new(); count];
    for line in marks.lines() {
        let (mark, commit) = line[1..].split_once(' ').unwrap();
        commit.clone_into(&mut commits[mark.parse::<usize>().unwrap() - 1]);
    }
    commits
}

/// Moves the branch, as a push does.
fn move_branch(app: &Repository, commit: &str) {
    let new = app.bare.join("main-of-the-test");
    fs::write(&new, commit).unwrap();
    fs::rename(new, app.bare.join("refs/heads/main")).unwrap();
}

/// The version that is published, if it is whole.
fn whole(tree: &Path) -> Result<usize, String> {
    // A reader that opened the directory reads on in it whatever the link does.
    let tree = fs::canonicalize(tree).map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    for file in 0..20 {
        let path = tree.join(format!("d{}/f{file}", file % 4));
        let text =
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        found.push(text);
    }
    match found.iter().all(|text| *text == found[0]) {
        true => found[0].parse().map_err(|_| format!("{found:?}")),
        false => Err(format!("{found:?}")),
    }
}

#[test]
fn a_kill_at_any_moment_leaves_a_whole_tree() {
    const KILLS: usize = 500;
    const PLACES: usize = 4;
    let ground = Ground::new();
    let commits = make_versions(&ground.app, 2000);
    move_branch(&ground.app, &commits[0]);
    // In memory, where there is such a place: a write that waits for a disk would be where nearly all kills hit.
    let places = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let places = places.unwrap();
    let (over, seen) = (AtomicBool::new(false), AtomicUsize::new(0));
    // Half of the places are fed by the server, half by the repository on this machine.
    let place = |number: usize| {
        let repo = match number % 2 {
            0 => ground.server.url("app.git"),
            _ => ground.app.bare.display().to_string(),
        };
        let root = places.path().join(format!("place-{number}"));
        let args = [
            format!("--repo=app={repo}"),
            format!("--root={}", root.display()),
            "--ref=main".to_owned(),
            "--period=100ms".to_owned(),
            // A reader may take its time over a tree.
            "--keep=20".to_owned(),
        ];
        (root.join("app"), args)
    };
    let kill = |number: usize| {
        let (tree, args) = place(number);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let begun = Instant::now();
        drop(Module::start("git-sync", &args, &[]));
        // The kills come within twice the time that it takes to be there.
        let most = (2 * begun.elapsed().as_millis() as usize).max(250);
        let mut last = whole(&tree).unwrap();
        for kill in 0..KILLS / PLACES {
            // Dropped, it is killed.
            let module = Module::spawn("git-sync", &args, &[]);
            let ms = (kill * 37 + number * 11) % most;
            std::thread::sleep(Duration::from_millis(ms as u64));
            drop(module);
            let found = whole(&tree)
                .unwrap_or_else(|why| panic!("kill {kill} of place {number} after {ms} ms: {why}"));
            assert!(found >= last, "{found} after {last}");
            seen.fetch_add(usize::from(found > last), Ordering::Relaxed);
            last = found;
        }
    };
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| {
            let mut versions = (1..).zip(&commits);
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(30));
                if let Some((_, commit)) = versions.next() {
                    move_branch(&ground.app, commit);
                }
            }
            versions.next().map_or(commits.len(), |(next, _)| next - 1)
        });
        let kills: Vec<_> = (0..PLACES)
            .map(|number| scope.spawn(move || kill(number)))
            .collect();
        let ends: Vec<bool> = kills.into_iter().map(|kill| kill.join().is_ok()).collect();
        over.store(true, Ordering::Relaxed);
        let version = pushing.join().unwrap();
        assert_eq!(ends, [true; PLACES]);
        // The kills came while something was being done.
        let seen = seen.load(Ordering::Relaxed);
        println!("{KILLS} kills, {version} versions, {seen} times a newer one was found");
        assert!(seen > KILLS / 4, "{seen}");
        for number in 0..PLACES {
            let (tree, args) = place(number);
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let _module = Module::start("git-sync", &args, &[]);
            until("the last version", || {
                (whole(&tree) == Ok(version)).then_some(())
            });
        }
    });
}

/// A disk in memory, of a size.
struct Disk(PathBuf);

impl Disk {
    fn new(path: &Path, size: &str) -> Self {
        fs::create_dir(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        run("mount", mount.arg(path)).ok();
        Self(path.to_owned())
    }

    fn resize(&self, size: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,size={size}")]);
        run("mount", mount.arg(&self.0)).ok();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// Bytes that don't compress.
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// What the kernel counts of a process's memory, in MiB.
fn mebibytes(module: &Module, what: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", module.process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let kib = line.unwrap().split_whitespace().next().unwrap();
    kib.parse::<u64>().unwrap() / 1024
}

#[test]
fn what_is_large_passes_through_little_memory() {
    const MOST: u64 = 48;
    let ground = Ground::new();
    ground.app.write("large", noise(1, 80 << 20));
    let mut changed = noise(2, 16 << 20);
    ground.app.write("changed", &changed);
    ground.app.publish("one");
    changed[8 << 20] ^= 1;
    ground.app.write("changed", &changed);
    ground.app.publish("two");
    let module = ground.start(&["--depth=0", "--period=200ms"]);
    let seen = fs::read(ground.root.join("app/changed")).unwrap();
    assert!(seen == changed);
    // And as a delta on what is in the store already.
    changed[4 << 20] ^= 1;
    ground.app.write("changed", &changed);
    ground.app.publish("three");
    until("the change", || {
        let seen = fs::read(ground.root.join("app/changed")).unwrap();
        (seen == changed).then_some(())
    });
    let large = fs::metadata(ground.root.join("app/large")).unwrap().len();
    assert_eq!(large, 80 << 20);
    let (peak, now) = (mebibytes(&module, "VmHWM:"), mebibytes(&module, "VmRSS:"));
    println!("{peak} MiB at the most, {now} MiB then");
    assert!(peak < MOST, "{peak}");
}

/// Changes `file` to what finds no room on the disk, then makes room.
fn fill_up(ground: &Ground, disk: &Disk, module: &Module, file: &str, bytes: &[u8], fetched: bool) {
    let before = fs::read(ground.root.join("app/name")).ok();
    let failed = || {
        let metric = "podkit_git_syncs_total{repo=\"app\",result=\"failed\"}";
        module.metric(metric).unwrap_or_default()
    };
    let lines = || {
        let text = module.process.text(Stream::Err);
        let lines = text.lines().filter(|line| line.contains("No space left"));
        lines.map(str::to_owned).collect::<Vec<String>>()
    };
    let (fetches, failures, said) = (ground.server.fetches(), failed(), lines().len());
    ground.app.write(file, bytes);
    ground.app.write("name", file);
    ground.app.publish(file);
    let begun = Instant::now();
    until("it to fail", || (failed() >= failures + 20.0).then_some(()));
    // It looked twenty times and more. What was fetched is not fetched again and again, and is not told again and again.
    let tries = ground.server.fetches() - fetches;
    let told = lines();
    println!(
        "{file}: {tries} packs asked for in {:?}: {}",
        begun.elapsed(),
        told.last().unwrap()
    );
    assert!((1..=6).contains(&tries), "{tries}");
    assert!(!fetched || tries == 1, "{tries}: it was here already");
    assert!((1..=6).contains(&(told.len() - said)), "{told:?}");
    let line = told.last().unwrap();
    assert!(
        line.contains("it is tried again when there is room"),
        "{line}"
    );
    assert_eq!(line.contains("/app/store: "), !fetched, "{line}");
    assert_eq!(fs::read(ground.root.join("app/name")).ok(), before);
    let began = Instant::now();
    disk.resize("96m");
    until("what was pushed", || {
        let name = fs::read_to_string(ground.root.join("app/name")).ok()?;
        (name == file).then_some(())
    });
    println!("{file}: there {:?} after there was room", began.elapsed());
    assert!(fs::read(ground.root.join("app").join(file)).unwrap() == bytes);
}

#[test]
fn a_full_disk_keeps_the_old_tree_until_there_is_room() {
    if !able(&[Need::Root, Need::Program("mount")]) {
        return;
    }
    let mut ground = Ground::new();
    let disk = Disk::new(&ground.dir.path().join("disk"), "3m");
    ground.root = disk.0.join("root");
    let start = || {
        let args = ground.args(&["--period=100ms", "--keep=1"]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Module::spawn("git-sync", &args, &[])
    };
    // The first clone; a fetch of more; files that are larger than their pack.
    let module = start();
    until("its metrics", || http::get(module.admin, "/metrics").ok());
    fill_up(&ground, &disk, &module, "first", &noise(1, 4 << 20), false);
    disk.resize("16m");
    fill_up(&ground, &disk, &module, "second", &noise(2, 9 << 20), false);
    disk.resize("32m");
    fill_up(
        &ground,
        &disk,
        &module,
        "third",
        &vec![b'x'; 24 << 20],
        true,
    );
    assert_eq!(module.admin("/readyz").status, 200);
}
