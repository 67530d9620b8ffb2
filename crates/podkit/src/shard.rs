//! `podkit shard plan OLD NEW`: what would move, before anything does.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, value_parser};
use podkit_ambassador::shard::place::{Distribution, HashFunction, HashTag, Moves, plan, sample};
use podkit_ambassador::shard::ring_of_file;
use podkit_foundation::error::Failure;
use podkit_foundation::params::{ParamError, ParamSet as _};

use crate::cli;
use crate::run::Form;

podkit_foundation::params! {
    /// What `shard plan` takes.
    struct PlanParams {
        /// How a key finds its shard, for files that are no nutcracker.yml.
        hash: Distribution { default: Some("rendezvous") },
        /// The number of a key, likewise.
        hash_function: Option<HashFunction> {},
        /// The two characters between which the part of a key stands that counts, likewise.
        hash_tag: Option<HashTag> {},
        /// A file of keys, one a line; 100,000 made-up ones unless given.
        keys: Option<PathBuf> {},
        /// The form of the output.
        output: Form { default: Some("text"), short: Some('o') },
    }
}

pub(crate) fn plan_command() -> Command {
    let file = |name: &'static str, help: &'static str| {
        let arg = Arg::new(name)
            .value_name(name.to_uppercase())
            .required(true);
        arg.value_parser(value_parser!(PathBuf)).help(help)
    };
    cli::with_params(Command::new("plan"), PlanParams::PARAMS)
        .about("What would move when one list of shards takes the place of another")
        .arg(file("old", "The list in force: a file as --shards-file takes it, or a nutcracker.yml (FILE.yml:POOL)"))
        .arg(file("new", "The list to come"))
}

pub(crate) fn shard_plan(matches: &ArgMatches) -> Result<ExitCode, Failure> {
    let params = PlanParams::from_values(&cli::values(PlanParams::PARAMS, matches))?;
    let ring = |name: &str| {
        let path = matches.get_one::<PathBuf>(name).expect("required");
        ring_of_file(path, params.hash, params.hash_function, params.hash_tag)
            .map_err(Failure::Usage)
    };
    let (old, new) = (ring("old")?, ring("new")?);
    let moves = match &params.keys {
        None => plan(&old, &new, sample()),
        Some(path) => {
            let wrong = |error: std::io::Error| {
                ParamError::new(
                    "keys",
                    format!("{} can't be read ({error})", path.display()),
                )
            };
            let file = std::fs::File::open(path).map_err(wrong)?;
            let lines: Result<Vec<Vec<u8>>, _> = BufReader::new(file).split(b'\n').collect();
            let lines = lines.map_err(wrong)?;
            plan(&old, &new, lines.iter().filter(|line| !line.is_empty()))
        }
    };
    let moves = moves.map_err(Failure::Usage)?;
    cli::print(&match params.output {
        Form::Text => moves.to_string(),
        Form::Json => format!("{:#}\n", json(&moves)),
    })
}

fn json(moves: &Moves) -> serde_json::Value {
    let shards = moves.shards.iter().map(|shard| {
        serde_json::json!({
            "name": shard.name,
            "before": shard.before,
            "after": shard.after,
            "leaving": shard.leaving,
            "arriving": shard.arriving,
        })
    });
    serde_json::json!({
        "keys": moves.keys,
        "moved": moves.moved,
        "share": moves.share(),
        "shards": shards.collect::<Vec<_>>(),
    })
}
