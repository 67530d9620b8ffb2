//! What runs inside the containers.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

pub(crate) fn main(args: &[String]) -> ExitCode {
    let word = |at: usize| args.get(at).map(String::as_str).unwrap_or_default();
    match word(0) {
        // exit CODE [AFTER_MS]
        "exit" => {
            pause(word(2));
            println!("exit {}", word(1));
            ExitCode::from(word(1).parse::<u8>().unwrap_or(0))
        }
        // sleep: until SIGTERM, which ends it well
        "sleep" => wait_for_term("sleeping"),
        // stubborn: SIGTERM does nothing to the first process of a PID namespace
        "stubborn" => loop {
            std::thread::sleep(Duration::from_secs(60));
        },
        // serve PORT [AFTER_MS]
        "serve" => {
            pause(word(2));
            let port: u16 = word(1).parse().expect("a port");
            let listener = TcpListener::bind(("0.0.0.0", port)).expect("the port is free");
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let _answered = answer(stream);
                }
            });
            wait_for_term("serving")
        }
        // flood: prints until SIGTERM
        "flood" => {
            // Not by way of the standard library's lock, which who ends it wants too.
            let out = std::io::stdout().as_fd().try_clone_to_owned();
            let mut out = std::fs::File::from(out.expect("a descriptor"));
            let mut line = [b'x'; 100];
            line[99] = b'\n';
            until_term(|| {
                std::thread::spawn(move || while out.write_all(&line).is_ok() {});
            })
        }
        // hog MIB: takes memory and touches it
        "hog" => {
            let mib: usize = word(1).parse().expect("a size");
            let mut all = Vec::new();
            for _ in 0..mib {
                all.push(vec![1u8; 1 << 20]);
            }
            wait_for_term(&format!("has {}", all.len()))
        }
        // suid PATH...: makes each a set-user-id program
        "suid" => {
            use std::os::unix::fs::PermissionsExt;
            for path in &args[1..] {
                std::fs::copy("/podkit", path).expect("a place to write to");
                let mode = std::fs::Permissions::from_mode(0o4755);
                std::fs::set_permissions(path, mode).expect("its owner");
            }
            wait_for_term("made")
        }
        // follow DIR: says what its files are whenever they are others, read out of one version
        "follow" => {
            let dir = word(1).to_owned();
            until_term(|| {
                std::thread::spawn(move || follow(&dir));
            })
        }
        // fill PATH KIB
        "fill" => {
            let kib: usize = word(2).parse().expect("a size");
            std::fs::write(word(1), vec![b'x'; kib * 1024]).expect("room");
            wait_for_term("filled")
        }
        // message TEXT CODE: leaves a termination message
        "message" => {
            std::fs::write("/dev/termination-log", word(1)).expect("the message's file");
            ExitCode::from(word(2).parse::<u8>().unwrap_or(0))
        }
        // on SIGNAL: until this signal, which is told and ends it well
        "on" => {
            let number: i32 = word(1).parse().expect("a signal's number");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                use tokio::signal::unix::{SignalKind, signal};
                let mut awaited = signal(SignalKind::from_raw(number)).expect("a handler");
                println!("waiting");
                awaited.recv().await;
            });
            println!("had {number}");
            ExitCode::SUCCESS
        }
        // both: a line on each stream, one without an end, and a control character
        "both" => {
            println!("to stdout");
            eprintln!("to stderr");
            print!("no end \x1b[2J");
            std::io::stdout().flush().expect("stdout");
            wait_for_term("")
        }
        // listen: says what it reads, until the end of standard input
        "listen" => {
            use std::io::{BufRead, IsTerminal};
            println!("terminal: {}", std::io::stdin().is_terminal());
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                println!("got {line}");
                eprintln!("heard {line}");
                if line == "leave" {
                    return ExitCode::SUCCESS;
                }
            }
            println!("the end");
            ExitCode::SUCCESS
        }
        // cat PATH…
        "cat" => {
            for path in &args[1..] {
                match std::fs::read_to_string(path) {
                    Ok(text) => print!("{text}"),
                    Err(error) => println!("{path}: {error}"),
                }
            }
            ExitCode::SUCCESS
        }
        // ask {ADDRESS SECONDS}...: what each says, or that it says nothing for so long
        "ask" => {
            for pair in args[1..].chunks(2) {
                let patience = Duration::from_secs(pair[1].parse().expect("seconds"));
                let said = ask(&pair[0], patience).unwrap_or_default();
                println!("{}: {said}", pair[0]);
            }
            ExitCode::SUCCESS
        }
        // touch PATH
        "touch" => match std::fs::write(word(1), "") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        // write PATH TEXT [AFTER_MS]
        "write" => {
            pause(word(3));
            std::fs::write(word(1), word(2)).expect("a place to write to");
            ExitCode::SUCCESS
        }
        // say WORD… NAME=…: the words, and what the variables are that have a name followed by a sign
        "say" => {
            for word in &args[1..] {
                match word.strip_suffix('=') {
                    Some(name) => println!("{word}{:?}", std::env::var(name).ok()),
                    None => println!("{word}"),
                }
            }
            wait_for_term("said")
        }
        // violate DIR PROGRAM: why nothing is made in the one, and the other not executed
        "violate" => {
            let made = std::fs::write(format!("{}/new", word(1)), "");
            let ran = std::process::Command::new(word(2)).status();
            println!(
                "{:?} {:?}",
                made.map_err(|e| e.kind()),
                ran.map_err(|e| e.kind())
            );
            ExitCode::SUCCESS
        }
        // exists PATH
        "exists" => ExitCode::from(u8::from(!std::path::Path::new(word(1)).exists())),
        // orphan: leaves a process behind
        "orphan" => {
            let child = std::process::Command::new("/podkit")
                .args(["app", "stubborn"])
                .spawn();
            println!("left {}", child.expect("a child").id());
            ExitCode::SUCCESS
        }
        other => {
            eprintln!("what is {other}?");
            ExitCode::from(99)
        }
    }
}

fn pause(ms: &str) {
    if let Ok(ms) = ms.parse() {
        std::thread::sleep(Duration::from_millis(ms));
    }
}

fn answer(mut stream: std::net::TcpStream) -> std::io::Result<()> {
    let mut head = [0; 1024];
    let _read = stream.read(&mut head)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
}

/// What a server says by itself.
fn ask(address: &str, patience: Duration) -> std::io::Result<String> {
    let address = address.parse().expect("an address and a port");
    let mut stream = std::net::TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

/// Until SIGTERM, which ends the process well; says so once it can be met.
fn wait_for_term(say: &str) -> ExitCode {
    until_term(|| {
        if !say.is_empty() {
            println!("{say}");
        }
    })
}

/// The same; `begin` is called once it can be met. Through a runtime: the only safe way to a handler here.
fn until_term(begin: impl FnOnce()) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut term = signal(SignalKind::terminate()).expect("a handler");
        begin();
        term.recv().await;
    });
    println!("terminated");
    ExitCode::SUCCESS
}

/// `a` and `b` are written together: whoever reads them out of one version sees them alike.
fn follow(dir: &str) {
    let text = |path: &str| std::fs::read_to_string(path);
    let mut last = String::new();
    loop {
        let version = std::fs::read_link(format!("{dir}/..data")).expect("a version");
        let version = format!("{dir}/{}", version.display());
        let all = ["a", "b", "label"].map(|name| text(&format!("{version}/{name}")));
        // A version that was replaced meanwhile is gone, or half gone.
        if let [Ok(a), Ok(b), Ok(label)] = all {
            if a != b {
                println!("torn");
            }
            let one = text("/one").expect("the file");
            let word = std::env::var("WORD").unwrap_or_default();
            let now = format!("sees {a} {b} {label} one={one} env={word}");
            if now != last {
                println!("{now}");
                last = now;
            }
        }
        pause("1");
    }
}
