//! What both test programs do with their cases: what libtest would, and the same again without root.

use std::process::ExitCode;

use crate::rootless::{Needs, WAYS};

/// Said to the program that is run by itself: it counts for the one that runs it.
const AGAIN: &str = "--again";

/// Runs the cases that the arguments ask for: a filter, `--exact`, `--list`; none is ignored. Other options of libtest don't
/// matter here. `prepare` is called once, before any case of this very process.
pub(crate) fn run<F, P>(
    args: &[String],
    cases: &[(&'static str, F)],
    needs: impl Fn(&str) -> Needs,
    prepare: impl FnOnce() -> P,
    call: impl Fn(&F, &P) + std::panic::RefUnwindSafe,
) -> ExitCode
where
    F: std::panic::RefUnwindSafe,
    P: std::panic::RefUnwindSafe,
{
    let given = |option: &str| args.iter().any(|arg| arg == option);
    let root = rustix::process::geteuid().is_root();
    // Those of the user first: what this process mounts for its own would be in their way.
    let mut names: Vec<(String, usize)> = Vec::new();
    for way in WAYS.iter().filter(|_| root) {
        let wanted = cases.iter().zip(0..);
        let wanted = wanted.filter(|((name, _), _)| way.can(needs(name)));
        names.extend(wanted.map(|((name, _), at)| (format!("{}{name}", way.prefix()), at)));
    }
    names.extend(cases.iter().map(|(name, _)| (*name).to_owned()).zip(0..));
    if given("--list") {
        let ignored = given("--ignored");
        for (name, _) in names.iter().filter(|_| !ignored) {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let filter = args.iter().skip(1).find(|arg| !arg.starts_with('-'));
    let filter = filter.map(String::as_str).unwrap_or_default();
    names.retain(|(name, _)| match given("--exact") {
        true => name == filter,
        false => name.contains(filter),
    });
    let own = |name: &str| WAYS.iter().all(|way| !name.starts_with(way.prefix()));
    let lack = |name: &str, at: usize| match WAYS.iter().find(|way| name.starts_with(way.prefix()))
    {
        Some(way) => way.lack(),
        None => needs(cases[at].0).lack(),
    };
    let mut prepare = Some(prepare);
    let mut prepared = None;
    let (mut failed, mut passed, mut ignored) = (Vec::new(), 0, 0);
    for (name, at) in &names {
        if let Some(lack) = lack(name, *at) {
            println!("test {name} ... ignored: {lack}");
            ignored += 1;
            continue;
        }
        let (case, run) = &cases[*at];
        let good = if own(name) {
            if let Some(prepare) = prepare.take() {
                prepared = Some(prepare());
            }
            let prepared = prepared.as_ref().expect("just made");
            std::panic::catch_unwind(|| call(run, prepared)).is_ok()
        } else {
            let way = WAYS.iter().find(|way| name.starts_with(way.prefix()));
            way.is_some_and(|way| way.run(&[case, "--exact", AGAIN]))
        };
        if !given(AGAIN) {
            println!("test {name} ... {}", if good { "ok" } else { "FAILED" });
        }
        match good {
            true => passed += 1,
            false => failed.push(name.as_str()),
        }
    }
    if !given(AGAIN) {
        // As libtest says it: `cargo xtask test` counts.
        let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
        println!(
            "\nfailures: {failed:?}\ntest result: {verdict}. {passed} passed; {} failed; {ignored} ignored",
            failed.len()
        );
    }
    match failed.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
