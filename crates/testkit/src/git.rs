//! Real git: repositories that a test makes and pushes to, and a server of them over HTTP by `git http-backend`.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::process::run;

/// A command of git that no configuration of the machine has a say in.
pub fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.com"])
        .args([
            "-c",
            "init.defaultBranch=main",
            "-c",
            "protocol.file.allow=always",
        ])
        .args(["-c", "advice.detachedHead=false", "-c", "gc.auto=0"])
        .args(args);
    command
}

/// Runs git; its output without the newline at the end. Panics when it fails.
pub fn git(dir: &Path, args: &[&str]) -> String {
    let done = run("git", &mut command(dir, args));
    assert_eq!(done.code, Some(0), "git {args:?}: {}{}", done.out, done.err);
    done.out.trim_end().to_owned()
}

/// A bare repository and a worktree whose `origin` it is.
#[derive(Debug)]
pub struct Repository {
    /// The worktree.
    pub work: PathBuf,
    /// The bare one.
    pub bare: PathBuf,
}

impl Repository {
    /// Makes `NAME.git` and `NAME` in a directory.
    pub fn new(dir: &Path, name: &str) -> Self {
        let (work, bare) = (dir.join(name), dir.join(format!("{name}.git")));
        git(dir, &["init", "-q", "--bare", &bare.to_string_lossy()]);
        git(dir, &["init", "-q", &work.to_string_lossy()]);
        git(&work, &["remote", "add", "origin", &bare.to_string_lossy()]);
        Self { work, bare }
    }

    /// Writes a file of the worktree.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.work.join(path);
        fs::create_dir_all(path.parent().expect("a file is in a directory")).expect("a directory");
        fs::write(path, text).expect("a file");
    }

    /// Commits everything; the commit's id.
    pub fn commit(&self, words: &str) -> String {
        git(&self.work, &["add", "-A"]);
        git(&self.work, &["commit", "-q", "--allow-empty", "-m", words]);
        git(&self.work, &["rev-parse", "HEAD"])
    }

    /// Pushes the branch.
    pub fn push(&self) {
        git(&self.work, &["push", "-q", "-f", "origin", "HEAD:main"]);
    }

    /// Commits everything and pushes; the commit's id.
    pub fn publish(&self, words: &str) -> String {
        let commit = self.commit(words);
        self.push();
        commit
    }
}

/// A server of the repositories in a directory. Its threads end with the test.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub addr: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    root: PathBuf,
    /// `METHOD TARGET`, in order.
    requests: Mutex<Vec<String>>,
    /// Packs that were asked for.
    fetches: AtomicUsize,
    /// Bytes that came and went.
    bytes: AtomicU64,
    /// What the Authorization field has to be.
    authorization: Mutex<Option<String>>,
}

impl Server {
    /// Starts it on a free port.
    pub fn start(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let state = Arc::new(State {
            root: root.to_owned(),
            ..State::default()
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // A client that goes away is no fault.
                std::thread::spawn(move || drop(state.serve(&stream)));
            }
        });
        Self { addr, state }
    }

    /// The URL of a repository.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.addr)
    }

    /// What was asked since the last time this was called.
    pub fn requests(&self) -> Vec<String> {
        let mut requests = self
            .state
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut requests)
    }

    /// Bytes of HTTP, both ways, since the start.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Relaxed)
    }

    /// How many packs were asked for since the start.
    pub fn fetches(&self) -> usize {
        self.state.fetches.load(Ordering::Relaxed)
    }

    /// Answers 401 to everything without this Authorization field from now on.
    pub fn want(&self, authorization: Option<&str>) {
        let mut wanted = self
            .state
            .authorization
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *wanted = authorization.map(str::to_owned);
    }
}

impl State {
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let stream = &Counted {
            stream,
            bytes: &self.bytes,
        };
        let mut from = BufReader::new(stream);
        loop {
            let mut lines = Vec::new();
            loop {
                let mut line = String::new();
                if from.read_line(&mut line)? == 0 {
                    return Ok(());
                }
                match line.trim_end() {
                    "" => break,
                    line => lines.push(line.to_owned()),
                }
            }
            let words: Vec<&str> = lines[0].split(' ').collect();
            let (method, target) = (words[0], words[1]);
            // A proxy shows the whole URL.
            let whole = target.strip_prefix("http://");
            let target = whole.map_or(target, |rest| &rest[rest.find('/').unwrap_or(0)..]);
            let request = format!("{method} {target}");
            self.requests
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(request);
            let field = |name: &str| {
                lines[1..].iter().find_map(|line| {
                    let (found, value) = line.split_once(':')?;
                    found.eq_ignore_ascii_case(name).then(|| value.trim())
                })
            };
            let length = field("content-length").map_or(0, |length| length.parse().unwrap_or(0));
            let mut body = vec![0; length];
            from.read_exact(&mut body)?;
            // The first packet of git's protocol (gitprotocol-v2(5)) has its length before it.
            if body
                .get(4..)
                .is_some_and(|body| body.starts_with(b"command=fetch"))
            {
                self.fetches.fetch_add(1, Ordering::Relaxed);
            }
            let wanted = self
                .authorization
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            if wanted.is_some() && wanted.as_deref() != field("authorization") {
                let answer = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: Basic realm=\"git\"\r\n\r\n";
                (&mut { stream }).write_all(answer.as_bytes())?;
                continue;
            }
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let mut backend = command(&self.root, &["http-backend"]);
            backend
                .env("GIT_PROJECT_ROOT", &self.root)
                .env("GIT_HTTP_EXPORT_ALL", "1")
                .env("PATH_INFO", path)
                .env("QUERY_STRING", query)
                .env("REQUEST_METHOD", method)
                .env("CONTENT_LENGTH", length.to_string())
                .env("CONTENT_TYPE", field("content-type").unwrap_or_default())
                .env("GIT_PROTOCOL", field("git-protocol").unwrap_or_default())
                .env("REMOTE_ADDR", "127.0.0.1")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null());
            let mut child = backend.spawn()?;
            let mut input = child.stdin.take().expect("a pipe was asked for");
            input.write_all(&body)?;
            drop(input);
            let mut output = BufReader::new(child.stdout.take().expect("a pipe was asked for"));
            let answered = answer(&mut output, stream);
            drop(child.kill());
            child.wait()?;
            answered?;
        }
    }
}

/// Passes on what a CGI program answers, in chunks.
fn answer(from: &mut impl BufRead, mut to: impl Write) -> io::Result<()> {
    let (mut status, mut head) = ("200 OK".to_owned(), String::new());
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some(("Status", code)) => code.clone_into(&mut status),
            Some((name, value)) => head += &format!("{name}: {value}\r\n"),
            None => break,
        }
    }
    let head = format!("HTTP/1.1 {status}\r\n{head}Transfer-Encoding: chunked\r\n\r\n");
    to.write_all(head.as_bytes())?;
    let mut chunk = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut chunk)?;
        to.write_all(format!("{count:x}\r\n").as_bytes())?;
        to.write_all(&chunk[..count])?;
        to.write_all(b"\r\n")?;
        if count == 0 {
            return Ok(());
        }
    }
}

/// Counts what goes through a connection.
struct Counted<'a> {
    stream: &'a TcpStream,
    bytes: &'a AtomicU64,
}

impl Counted<'_> {
    fn count(&self, count: usize) -> usize {
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
        count
    }
}

impl Read for &Counted<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut stream = self.stream;
        stream.read(out).map(|count| self.count(count))
    }
}

impl Write for &Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stream = self.stream;
        stream.write(bytes).map(|count| self.count(count))
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut stream = self.stream;
        stream.flush()
    }
}
