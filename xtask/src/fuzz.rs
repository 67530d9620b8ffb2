//! `cargo xtask fuzz NAME`: a target of the workspace `fuzz/` by libFuzzer, for as long as wanted. It begins with the target's seeds; what it
//! finds new stays in `fuzz/corpus/NAME`, what upset the target in `fuzz/artifacts`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use podkit_testkit::repository;

use crate::build;

/// Runs the target for so many seconds. No such target: says which there are.
pub(crate) fn run(name: &str, seconds: u64) -> Result<()> {
    let fuzz = repository().join("fuzz");
    let corpus = fuzz.join("corpus");
    // No sanitizer of addresses: podkit has no unsafe code where bytes are parsed.
    let cargo = |more: &[&str]| {
        let mut command = Command::new("cargo");
        command
            .current_dir(repository())
            .args(["+nightly", "fuzz", "run", "--sanitizer=none", "any"])
            .args(more);
        command
    };
    let seeds = ["--", "-runs=0"];
    build::run(cargo(&seeds).env("PODKIT_FUZZ_SEEDS", &corpus)).context(
        "the fuzzer wants a nightly compiler and cargo-fuzz: rustup toolchain install nightly; cargo install cargo-fuzz",
    )?;
    let of_target = corpus.join(name);
    if !of_target.is_dir() {
        bail!("\"{name}\" is no target: {}", names(&corpus)?.join(", "));
    }
    let of_target = of_target.display().to_string();
    let time = format!("-max_total_time={seconds}");
    build::run(cargo(&[&of_target, "--", &time]).env("PODKIT_FUZZ", name))
}

fn names(corpus: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(corpus).with_context(|| corpus.display().to_string())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
