//! `cargo xtask test`: what must hold, cheapest first. The end-to-end tests run the release build, the one that people get.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use podkit_testkit::repository;

use crate::build::{self, cargo, release, watched};
use crate::machine;

/// Which tests.
enum Tests {
    All,
    OfCrates,
    /// Those that need the binary.
    EndToEnd,
}

impl Tests {
    /// For nextest. The package is chosen by a filter: with other packages to build, cargo would build them with other features, all anew.
    fn for_nextest(&self) -> &[&'static str] {
        match self {
            Self::All => &[],
            Self::OfCrates => &["-E", "not package(podkit-e2e)"],
            Self::EndToEnd => &["-E", "package(podkit-e2e)"],
        }
    }

    /// For cargo's own runner.
    fn for_cargo(&self) -> &[&'static str] {
        match self {
            Self::All => &["--workspace"],
            Self::OfCrates => &["--workspace", "--exclude", "podkit-e2e"],
            Self::EndToEnd => &["--package", "podkit-e2e"],
        }
    }
}

/// Runs everything; the last line counts the tests.
pub(crate) fn run() -> Result<()> {
    let started = Instant::now();
    let count = all(&|name| println!("== {name}, at {} s", started.elapsed().as_secs()))?;
    for skipped in &count.skips {
        println!("skipped: {skipped}");
    }
    println!("time: {} s", started.elapsed().as_secs());
    let verdict = if count.good() { "ok" } else { "FAILED" };
    println!(
        "test result: {verdict}. {} passed; {} failed; {} skipped",
        count.passed - count.skips.len().min(count.passed),
        count.failed,
        count.ignored + count.skips.len()
    );
    if !count.good() {
        bail!("not everything holds");
    }
    Ok(())
}

/// Says at each step when it begins.
fn all(step: &dyn Fn(&str)) -> Result<Count> {
    step("what the tests need");
    machine::provide(machine::FOR_TESTS)?;
    machine::provide_python()?;
    components()?;

    step("format");
    build::run(&mut cargo(&["fmt", "--all", "--check"]))?;

    let mut count = Count::default();
    let binary = std::thread::scope(|scope| {
        // Its last minutes are one thread's, which optimises across crates: the other core has the rest to do meanwhile.
        let binary = scope.spawn(release);
        step("lints, beside the release build");
        lints()?;
        step("the tests are built, beside the release build");
        let mut built = runner(&Tests::All);
        built.push("--no-run");
        build::run(&mut cargo(&built))?;
        step("tests of the crates, beside the release build");
        tests(&Tests::OfCrates, None, &mut count)?;
        step("the rest of the release build");
        binary.join().expect("it does not panic")
    })?;

    step("end-to-end tests");
    tests(&Tests::EndToEnd, Some(&binary), &mut count)?;

    step("documentation tests");
    let (lines, passed) = watched(&mut cargo(&["test", "--workspace", "--doc", "--quiet"]))?;
    count.add_cargo(&lines);
    count.failed_commands += usize::from(!passed);
    Ok(count)
}

/// What the runs of a test command add up to.
#[derive(Debug, Default)]
pub(crate) struct Count {
    passed: usize,
    failed: usize,
    ignored: usize,
    failed_commands: usize,
    /// Tests that passed by saying what they would need.
    skips: Vec<String>,
}

impl Count {
    fn good(&self) -> bool {
        self.failed == 0 && self.failed_commands == 0 && self.passed > 0
    }

    /// `test result: ok. 12 passed; 0 failed; 1 ignored; …`, one line a test program.
    fn add_cargo(&mut self, lines: &[String]) {
        for line in lines.iter().filter(|line| line.starts_with("test result:")) {
            let number = |word: &str| {
                let before = line.split(word).next().unwrap_or_default();
                let last = before.trim_end().rsplit([' ', '.']).next();
                last.and_then(|text| text.parse::<usize>().ok())
                    .unwrap_or(0)
            };
            self.passed += number("passed");
            self.failed += number("failed;");
            self.ignored += number("ignored");
        }
    }

    /// `Summary [ 0.938s] 10 tests run: 9 passed, 1 failed, 2 timed out, 0 skipped`, once.
    fn add_nextest(&mut self, lines: &[String]) {
        for line in lines.iter().filter(|line| line.contains("Summary [")) {
            let Some((_, counts)) = line.split_once("run:") else {
                continue;
            };
            for part in counts.split(',') {
                let number = part
                    .split_whitespace()
                    .next()
                    .and_then(|text| text.parse::<usize>().ok());
                let number = number.unwrap_or(0);
                // "9 passed (1 slow, 1 leaky)": what is in brackets says how, not how many more.
                if part.contains("passed") {
                    self.passed += number;
                } else if part.contains("failed") || part.contains("timed out") {
                    self.failed += number;
                } else if part.contains("skipped") {
                    self.ignored += number;
                }
            }
        }
    }
}

fn lints() -> Result<()> {
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ];
    build::run(&mut cargo(&clippy))
}

/// How cargo is told to run tests: by nextest where that is there.
fn runner(which: &Tests) -> Vec<&'static str> {
    let nextest = cargo(&["nextest", "--version"])
        .output()
        .is_ok_and(|output| output.status.success());
    match nextest {
        true => [
            &["nextest", "run", "--workspace", "--color=never"],
            which.for_nextest(),
        ]
        .concat(),
        false => [
            &["test", "--all-targets", "--no-fail-fast", "--color=never"],
            which.for_cargo(),
        ]
        .concat(),
    }
}

fn tests(which: &Tests, binary: Option<&Path>, count: &mut Count) -> Result<()> {
    let skipped = std::env::temp_dir().join(format!("xtask-skipped-{}", std::process::id()));
    let args = runner(which);
    let nextest = args[0] == "nextest";
    let mut command = cargo(&args);
    command.env("TESTKIT_SKIPPED", &skipped);
    if let Some(binary) = binary {
        command.env("TESTKIT_PODKIT", binary);
    }
    let (lines, passed) = watched(&mut command)?;
    if nextest {
        count.add_nextest(&lines);
    } else {
        count.add_cargo(&lines);
    }
    count.failed_commands += usize::from(!passed);
    if let Ok(text) = std::fs::read_to_string(&skipped) {
        count.skips.extend(text.lines().map(str::to_owned));
        std::fs::remove_file(&skipped)?;
    }
    Ok(())
}

/// rustfmt and clippy, which a minimal toolchain lacks.
fn components() -> Result<()> {
    for (tool, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        let there = cargo(&[tool, "--version"])
            .output()
            .is_ok_and(|output| output.status.success());
        if there {
            continue;
        }
        if podkit_testkit::program("rustup").is_none() {
            bail!("cargo {tool} is missing: install the component {component} of the toolchain");
        }
        let mut command = std::process::Command::new("rustup");
        command.current_dir(repository());
        build::run(command.args(["component", "add", component]))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(add: fn(&mut Count, &[String]), line: &str, expected: (usize, usize, usize)) {
        let mut count = Count::default();
        add(&mut count, &[line.to_owned()]);
        assert_eq!((count.passed, count.failed, count.ignored), expected);
    }

    #[test]
    fn both_runners_are_counted() {
        check(
            Count::add_cargo,
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out; finished in 0.40s",
            (12, 0, 1),
        );
        check(
            Count::add_nextest,
            "     Summary [   1.271s] 10 tests run: 6 passed (1 slow), 3 failed, 1 timed out, 2 skipped",
            (6, 4, 2),
        );
        check(
            Count::add_nextest,
            "Summary [ 1.2s] 1 test run: 1 passed, 0 skipped",
            (1, 0, 0),
        );
    }
}
