//! What the test program does inside a container: each word prints what a case wants to know.

#[path = "attack.rs"]
pub(crate) mod attack;

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// `inside WORD ARG...; WORD ARG...`: the words one after the other, separated by arguments that are `;`.
pub(crate) fn main(args: &[String]) -> ExitCode {
    for words in args.split(|arg| arg == ";") {
        let Some((word, args)) = words.split_first() else {
            continue;
        };
        if let Some(code) = act(word, args) {
            return code;
        }
    }
    ExitCode::SUCCESS
}

fn show(what: &str, result: std::io::Result<impl std::fmt::Debug>) {
    match result {
        Ok(value) => println!("{what}: ok {value:?}"),
        Err(error) => println!("{what}: {}", error.raw_os_error().unwrap_or(-1)),
    }
}

fn zombies() -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok())
        .filter(|stat| {
            stat.rsplit(") ")
                .next()
                .is_some_and(|rest| rest.starts_with('Z'))
        })
        .count()
}

fn act(word: &str, args: &[String]) -> Option<ExitCode> {
    match word {
        "cat" => match std::fs::read(&args[0]) {
            Ok(bytes) => std::io::stdout().write_all(&bytes).unwrap(),
            Err(error) => println!("{}: {}", args[0], error.raw_os_error().unwrap_or(-1)),
        },
        "args" => println!("args {:?}", std::env::args().collect::<Vec<_>>()),
        "env" => println!("env {:?}", std::env::vars().collect::<Vec<_>>()),
        "cwd" => println!("cwd {}", std::env::current_dir().unwrap().display()),
        "echo" => println!("{}", args.join(" ")),
        "pid" => println!("pid {}", std::process::id()),
        "hostname" => println!(
            "hostname {}",
            rustix::system::uname().nodename().to_str().unwrap()
        ),
        "link" => println!("{} -> {:?}", args[0], std::fs::read_link(&args[0])),
        "ls" => {
            let mut names: Vec<_> = std::fs::read_dir(&args[0])
                .map(|entries| {
                    entries
                        .filter_map(|e| e.ok()?.file_name().into_string().ok())
                        .collect()
                })
                .unwrap_or_default();
            names.sort();
            println!("{}: {names:?}", args[0]);
        }
        "write" => show(
            &format!("write {}", args[0]),
            std::fs::write(&args[0], &args[1]),
        ),
        "open-write" => show(
            &format!("open-write {}", args[0]),
            std::fs::OpenOptions::new()
                .write(true)
                .open(&args[0])
                .map(drop),
        ),
        "read-some" => {
            let mut bytes = [0; 16];
            let read = std::fs::File::open(&args[0]).and_then(|mut file| file.read(&mut bytes));
            show(&format!("read-some {}", args[0]), read);
        }
        "stat" => {
            use std::os::unix::fs::{FileTypeExt, MetadataExt};
            show(
                &format!("stat {}", args[0]),
                std::fs::symlink_metadata(&args[0]).map(|m| {
                    let kind = if m.file_type().is_char_device() {
                        "char"
                    } else if m.is_dir() {
                        "dir"
                    } else {
                        "other"
                    };
                    format!("{kind} {:o} {:x}", m.mode() & 0o7777, m.rdev())
                }),
            );
        }
        "mknod" => {
            let (major, minor) = (args[1].parse().unwrap(), args[2].parse().unwrap());
            let made = rustix::fs::mknodat(
                rustix::fs::CWD,
                Path::new(&args[0]),
                rustix::fs::FileType::BlockDevice,
                rustix::fs::Mode::from_raw_mode(0o600),
                rustix::fs::makedev(major, minor),
            );
            show(&format!("mknod {}", args[0]), made.map_err(Into::into));
        }
        "spawn-sleep" => {
            // A process of ours that nobody waits for.
            let exe = std::env::current_exe().unwrap();
            let child = std::process::Command::new(exe)
                .args(["inside", "sleep"])
                .spawn();
            println!("spawned {}", child.unwrap().id());
        }
        "orphan" => {
            // A child whose child outlives it for a moment: it becomes the init's, and must not stay a zombie.
            let exe = std::env::current_exe().unwrap();
            let status = std::process::Command::new(exe)
                .args(["inside", "spawn-nap"])
                .status()
                .unwrap();
            println!("orphan made {}", status.success());
        }
        "spawn-nap" => {
            let exe = std::env::current_exe().unwrap();
            drop(
                std::process::Command::new(exe)
                    .args(["inside", "nap", "20"])
                    .spawn()
                    .unwrap(),
            );
        }
        "nap" => std::thread::sleep(Duration::from_millis(args[0].parse().unwrap())),
        // How many there are; none, as soon as all are reaped.
        "zombies" => {
            let end = Instant::now() + Duration::from_secs(20);
            while zombies() > 0 && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
            println!("zombies {}", zombies());
        }
        "terminal" => {
            use std::os::unix::fs::MetadataExt;
            let name = rustix::termios::ttyname(std::io::stdin(), Vec::new()).unwrap();
            let size = rustix::termios::tcgetwinsize(std::io::stdout()).unwrap();
            let owner = std::fs::metadata(name.to_str().unwrap()).unwrap();
            let controlling = std::fs::File::open("/dev/tty").is_ok();
            println!(
                "terminal {} owner {}:{} {}x{}, {}",
                name.to_str().unwrap(),
                owner.uid(),
                owner.gid(),
                size.ws_row,
                size.ws_col,
                if controlling {
                    "controlling"
                } else {
                    "not controlling"
                }
            );
        }
        "line" => {
            println!("reading a line");
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).unwrap();
            println!("line {:?}", line.trim_end());
        }
        "wait-signal" => {
            // PID 1 of its namespace gets only signals that it has a handler for.
            let number: i32 = args[0].parse().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let kind = tokio::signal::unix::SignalKind::from_raw(number);
                let mut signals = tokio::signal::unix::signal(kind).unwrap();
                println!("ready for {number}");
                signals.recv().await;
                println!("signal {number}");
            });
        }
        "mkdir" => show(&format!("mkdir {}", args[0]), std::fs::create_dir(&args[0])),
        "sleep" => std::thread::sleep(Duration::from_secs(600)),
        "wait-input" => {
            let mut byte = [0];
            drop(std::io::stdin().read(&mut byte));
        }
        "exit" => return Some(ExitCode::from(args[0].parse::<u8>().unwrap())),
        "kill-self" => {
            let me = rustix::process::getpid();
            rustix::process::kill_process(me, rustix::process::Signal::ABORT).unwrap();
            std::thread::sleep(Duration::from_secs(600));
        }
        "umask" => {
            println!(
                "umask {:o}",
                rustix::process::umask(rustix::fs::Mode::empty()).as_raw_mode()
            );
        }
        other if attack::act(other, args) => {}
        other => {
            println!("unknown word {other}");
            return Some(ExitCode::from(99));
        }
    }
    None
}
