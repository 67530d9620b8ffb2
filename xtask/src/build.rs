//! Runs cargo, and finds the podkit that it built.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use podkit_testkit::repository;

/// `cargo` of this toolchain, in the repository.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What the cargo that runs this xtask says of its own package is not for the packages that are built.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" {
            command.env_remove(name);
        }
    }
    command.current_dir(repository()).args(args);
    command
}

/// Runs a command whose output goes where ours goes; an error names it when it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let status = command
        .status()
        .with_context(|| format!("{shown} can't be started"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// Runs a command, shows its output as it comes, and gives the lines and whether it succeeded.
pub(crate) fn watched(command: &mut Command) -> Result<(Vec<String>, bool)> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} can't be started", shown(command)))?;
    let lines = Mutex::new(Vec::new());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        scope.spawn(|| pass_on(out, std::io::stdout(), &lines));
        scope.spawn(|| pass_on(err, std::io::stderr(), &lines));
    });
    let status = child.wait()?;
    let lines = lines.into_inner().expect("no reader panicked");
    Ok((lines, status.success()))
}

fn pass_on(pipe: Option<impl Read>, mut to: impl Write, lines: &Mutex<Vec<String>>) {
    let reader = BufReader::new(pipe.expect("a pipe was asked for"));
    for line in reader.lines().map_while(Result::ok) {
        // When nobody reads ours, the lines are still counted.
        drop(writeln!(to, "{line}"));
        lines.lock().expect("no reader panicked").push(line);
    }
}

/// The command as typed.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// Builds the release podkit and gives its path.
pub(crate) fn release() -> Result<PathBuf> {
    let mut command = cargo(&[
        "build",
        "--release",
        "--package",
        "podkit",
        "--message-format=json-render-diagnostics",
    ]);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("cargo can't be started")?;
    if !output.status.success() {
        bail!("the release build failed");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    messages
        .filter(|message| message["target"]["name"] == "podkit")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo names no podkit among what it built")
}
