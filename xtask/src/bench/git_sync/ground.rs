//! The repository that is fetched, and who fetches it.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use podkit_testkit::git::{command, git};
use podkit_testkit::program;

/// What a repository is made of, at full size.
pub(super) const WORDS: &str = "8,000 files of 25 kB, 20 of 10 MB and one of 100 MB, none of which compresses, and 2,000 texts of 4 kB, of which each of 20 commits changes a tenth";
const SMALL_FILES: usize = 8_000;
const SMALL_BYTES: usize = 25_000;
const LARGE_FILES: usize = 20;
const LARGE_BYTES: usize = 10_000_000;
const HUGE_BYTES: usize = 100_000_000;
const TEXTS: usize = 2_000;
const COMMITS: usize = 20;

/// Makes `app.git` in a directory; `share` of the sizes above. Returns the bytes of its pack.
pub(super) fn make(dir: &Path, share: f64) -> Result<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a count of files and bytes"
    )]
    let part = |count: usize| ((count as f64 * share) as usize).max(1);
    let bare = dir.join("app.git");
    git(dir, &["init", "-q", "--bare", &bare.to_string_lossy()]);
    let mut import = command(&bare, &["fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()?;
    let input = import.stdin.take().expect("a pipe was asked for");
    let mut stream = Stream {
        out: BufWriter::with_capacity(1 << 20, input),
        state: 0x9e37_79b9_7f4a_7c15,
    };
    for commit in 1..=COMMITS {
        stream.commit(commit)?;
        if commit == 1 {
            for file in 0..part(SMALL_FILES) {
                stream.noise(&format!("small/{}/{file}", file % 100), SMALL_BYTES)?;
            }
            for file in 0..part(LARGE_FILES) {
                stream.noise(&format!("large/{file}"), LARGE_BYTES)?;
            }
            stream.noise("huge", part(HUGE_BYTES))?;
        }
        for file in 0..part(TEXTS) {
            if commit == 1 || file % 10 == commit % 10 {
                stream.text(&format!("texts/{}/{file}", file % 20), commit)?;
            }
        }
    }
    drop(stream);
    ensure!(import.wait()?.success(), "git fast-import failed");
    git(&bare, &["repack", "-a", "-d", "-q"]);
    let mut bytes = 0;
    for entry in fs::read_dir(bare.join("objects/pack"))? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|end| end == "pack") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

/// What git fast-import reads. The same bytes each time.
struct Stream<W> {
    out: W,
    state: u64,
}

impl<W: Write> Stream<W> {
    fn commit(&mut self, number: usize) -> Result<()> {
        write!(
            self.out,
            "commit refs/heads/main\ncommitter Bench <bench@example.com> {number} +0000\ndata 0\n"
        )?;
        Ok(())
    }

    fn noise(&mut self, path: &str, bytes: usize) -> Result<()> {
        let bytes = bytes.next_multiple_of(8);
        writeln!(self.out, "M 100644 inline {path}\ndata {bytes}")?;
        for _ in 0..bytes / 8 {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            self.out.write_all(&self.state.to_le_bytes())?;
        }
        writeln!(self.out)?;
        Ok(())
    }

    fn text(&mut self, path: &str, version: usize) -> Result<()> {
        let mut text: String = (0..200)
            .map(|line| format!("{path} line {line}\n"))
            .collect();
        text += &format!("version {version}\n");
        writeln!(
            self.out,
            "M 100644 inline {path}\ndata {}\n{text}",
            text.len()
        )?;
        Ok(())
    }
}

/// Who fetches.
#[derive(Debug, Clone)]
pub(super) enum Tool {
    Podkit(PathBuf),
    Git,
    /// kubernetes/git-sync.
    Kubernetes(PathBuf),
}

/// The variable that says where kubernetes/git-sync's binary is.
pub(super) const KUBERNETES: &str = "KUBERNETES_GIT_SYNC";

impl Tool {
    /// kubernetes/git-sync, when it is here: no distribution has it.
    pub(super) fn kubernetes() -> Option<Self> {
        let named = std::env::var_os(KUBERNETES).map(PathBuf::from);
        named.or_else(|| program("git-sync")).map(Self::Kubernetes)
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Podkit(_) => "podkit git-sync",
            Self::Git => "git clone",
            Self::Kubernetes(_) => "kubernetes/git-sync",
        }
    }

    /// Clones once, into a directory that is not there yet; depth 0 is all history.
    pub(super) fn once(&self, url: &str, into: &Path, depth: u32) -> Command {
        match self {
            Self::Git => {
                let mut command = command(Path::new("/"), &["clone", "-q", "--branch=main"]);
                if depth > 0 {
                    command.arg(format!("--depth={depth}"));
                }
                command.arg(url).arg(into);
                command
            }
            Self::Podkit(_) => {
                let mut command = self.service(url, into, depth, "10s");
                command.args(["--once", "--admin=127.0.0.1:0"]);
                command
            }
            Self::Kubernetes(_) => {
                let mut command = self.service(url, into, depth, "10s");
                command.arg("--one-time");
                command
            }
        }
    }

    /// Stays in step, with the tree at `INTO/app`.
    pub(super) fn service(&self, url: &str, into: &Path, depth: u32, period: &str) -> Command {
        let mut command = match self {
            Self::Podkit(binary) => {
                let mut command = Command::new(binary);
                command.args(["git-sync", "--log-level=error"]);
                command
            }
            Self::Kubernetes(binary) => {
                let mut command = Command::new(binary);
                // It writes git's configuration of its user.
                command.env("HOME", into.with_extension("home"));
                command
            }
            Self::Git => unreachable!("git clone ends"),
        };
        command.args(["--ref=main", "--link=app"]);
        command.arg(format!("--repo={url}"));
        command.arg(format!("--root={}", into.display()));
        command.arg(format!("--depth={depth}"));
        command.arg(format!("--period={period}"));
        command
    }
}
