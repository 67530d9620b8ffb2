//! config when things go wrong under it: killed at any moment, a disk that is full.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use podkit_testkit::podkit::{Module, binary, command};
use podkit_testkit::process::Process;
use podkit_testkit::versions::{MADE, TEMPLATE, look, text, write};
use podkit_testkit::{Need, Turn, able, net, until};
use rustix::process::Signal;

use super::config::Ground;

/// While the source changes all the time, and every other time with something to end after a crash.
#[test]
fn five_hundred_kills_leave_five_hundred_good_sets() {
    let _turn = Turn::shared();
    let ground = Ground::new(&[("v.json", &text(0)), ("t", TEMPLATE)]);
    let source = format!("--source=file:{}", ground.source.display());
    let out = format!("--out={}", ground.out.display());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 1.. {
                write(&ground.source, number);
                std::thread::sleep(Duration::from_millis(3));
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let begin = |kill: u64| {
            let mut config = command(&["config", "--admin=127.0.0.1:0", &source, &out]);
            config.arg(MADE);
            if kill.is_multiple_of(2) {
                config.args(["--reload=exec:true", "--confirm=exec:true"]);
            }
            Process::spawn("podkit config", &mut config)
        };
        // The kills come within twice the time that it takes to publish something.
        let begun = Instant::now();
        let first = begin(0);
        until("something is published", || {
            look(&ground.out).ok().flatten()
        });
        let most = (2 * begun.elapsed().as_micros() as u64).max(80_000);
        drop(first);
        let (mut last, mut moved) = (look(&ground.out).unwrap(), 0);
        for kill in 0..500 {
            let mut config = begin(kill);
            // Another moment each time, the first ones before anything is open.
            std::thread::sleep(Duration::from_micros(1_000 + kill * 7_919 % most));
            assert!(!config.has_ended(), "{}", config.shown());
            config.signal(Signal::KILL);
            config.wait();
            let found = look(&ground.out).unwrap_or_else(|why| panic!("kill {kill}: {why}"));
            moved += usize::from(found > last);
            last = found;
        }
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        println!("500 kills, {moved} of them after a version that was new");
        assert!(moved > 150, "only {moved} of 500 had published anything");
    });
    write(&ground.source, 1_000_000);
    let module = ground.spawn_from(&[&source], &[MADE]);
    until("the last version", || {
        (look(&ground.out) == Ok(Some(1_000_000))).then_some(())
    });
    assert_eq!(module.admin("/readyz").status, 200);
    let store = ground.out.join("..podkit");
    // The present version, two former ones, the lock.
    until("what the kills left to be gone", || {
        let names = fs::read_dir(&store).unwrap();
        (names.count() <= 4).then_some(())
    });
}

/// A file system that is full to the last page, or has a few left: the old set stays, and when there is room the new one comes.
#[test]
fn a_full_disk_takes_nothing() {
    if !able(&[Need::Program("unshare")]) {
        return;
    }
    let _turn = Turn::shared();
    let ground = Ground::new(&[("v.json", &text(1)), ("t", TEMPLATE)]);
    fs::create_dir(&ground.out).unwrap();
    let admin = net::free_addr();
    // In a mount namespace of its own, which goes with the process.
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--map-root-user", "sh", "-ec"])
        .arg("mount -t tmpfs -o size=256k tmpfs \"$1\"; shift; exec \"$@\"")
        .arg("-")
        .arg(&ground.out)
        .arg(binary())
        .args(["config", "--admin", &admin.to_string()])
        .arg(format!("--source=file:{}", ground.source.display()))
        .arg(format!("--out={}", ground.out.display()))
        .args([MADE, "--reload=exec:true", "--keep=1"]);
    let process = Process::spawn("podkit config", &mut command);
    let module = Module { process, admin };
    module.wait_ready();
    let inside = ground.out.strip_prefix("/").unwrap();
    let out = Path::new("/proc")
        .join(module.process.pid().to_string())
        .join("root")
        .join(inside);
    assert_eq!(look(&out), Ok(Some(1)));
    let filler = out.join("filler");
    let refused = || module.metric("podkit_config_refused_total{step=\"write\"}");

    // Every step that takes room comes to be the one that fails.
    let page = 4096;
    for left in 0..8 {
        let mut file = File::create(&filler).unwrap();
        let full = (0..)
            .find_map(|_| file.write_all(&[1; 4096]).err())
            .unwrap();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
        let length = file.metadata().unwrap().len();
        file.set_len(length - left * page).unwrap();
        drop(file);
        let before = refused();
        // Seven pages in two files, then the journal.
        let number = 650 + left;
        write(&ground.source, number);
        until("the refusal, or the version", || {
            (refused() > before || look(&out) == Ok(Some(number))).then_some(())
        });
        if left == 0 {
            let line = module.process.wait_line("the reason", |line| {
                line.contains("No space left on device")
            });
            assert!(
                line.text.contains("write: ")
                    && line.text.contains("can't be written (")
                    && line.text.contains("refused; what is published stays"),
                "{}",
                line.text
            );
            until("another try", || (refused() > Some(1.0)).then_some(()));
            let told = module.process.shown().matches("No space").count();
            assert_eq!(told, 1, "{}", module.process.shown());
            assert_eq!(look(&out), Ok(Some(1)));
            assert_eq!(module.admin("/readyz").status, 200);
        }
        let now = look(&out).unwrap();
        assert!(
            now == Some(number) || now < Some(number) && now.is_some(),
            "{now:?}"
        );
        fs::remove_file(&filler).unwrap();
        // By itself; the later rounds need not wait for that.
        if left > 0 {
            module.process.signal(Signal::HUP);
        }
        until("the new version", || {
            (look(&out) == Ok(Some(number))).then_some(())
        });
    }
}
