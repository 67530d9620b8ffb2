//! podkit executed anew with the same words: a supervisor, or the process that goes on in the background. It reads the same files,
//! and has to find the same names in them.

use std::process::Command;

use super::RunOptions;
use crate::manifest;

/// What names follow from that the files leave to podkit (`metadata.generateName`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameSeed {
    seed: manifest::NameSeed,
    /// The command line has it already.
    given: bool,
}

impl NameSeed {
    /// Of a process that a person started: other names each time.
    pub fn random() -> Self {
        Self {
            seed: manifest::NameSeed::random(),
            given: false,
        }
    }

    /// `--name-seed N` (hidden): that of the process that started this one.
    pub fn given(seed: u64) -> Self {
        Self {
            seed: manifest::NameSeed(seed),
            given: true,
        }
    }

    pub(super) fn seed(self) -> manifest::NameSeed {
        self.seed
    }
}

/// The command, to which more words may be added.
pub(super) fn again(options: &RunOptions) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(std::env::args_os().skip(1));
    let NameSeed { seed, given } = options.name_seed;
    if !given {
        command.args(["--name-seed", &seed.0.to_string()]);
    }
    command
}
