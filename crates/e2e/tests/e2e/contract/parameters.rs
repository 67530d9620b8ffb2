//! Parameters: P1 to P5 of the contract, and S1.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::{Module, binary, command};
use podkit_testkit::process::{Finished, Process, run};
use podkit_testkit::{Need, able, http, until};
use serde_json::Value;

use super::{Case, modules};

/// Runs a case with arguments and variables that it must refuse. Its ports are taken, so that one that listens before it looks fails
/// in another way.
fn refused(case: &Case, more: &[&str], variables: &[(&str, &str)]) -> Finished {
    let taken = TcpListener::bind(case.serves).expect("the case's port is free");
    let admin = taken.local_addr().expect("it is bound").to_string();
    let mut args: Vec<&str> = vec![&case.name];
    args.extend(case.args.iter().map(String::as_str));
    // Given after ours, so that a second --admin is not in the way of a parameter that is tested.
    args.extend(["--admin", &admin]);
    args.extend(more);
    run(&case.name, command(&args).envs(variables.iter().copied()))
}

fn assert_one_line(case: &Case, what: &str, finished: &Finished, holds: &[&str]) {
    let name = &case.name;
    assert_eq!(
        finished.code,
        Some(2),
        "{name} {what}: {}{}",
        finished.out,
        finished.err
    );
    assert_eq!(
        finished.err.lines().count(),
        1,
        "{name} {what}: {}",
        finished.err
    );
    for part in holds {
        assert!(
            finished.err.contains(part),
            "{name} {what}: no {part} in {}",
            finished.err
        );
    }
}

/// A text that is wrong for a parameter of this type, or none where every text is right.
fn wrong_text(param: &Value) -> Option<&'static str> {
    match param["type"].as_str()? {
        "path" | "files" | "text" | "string" => None,
        _ => Some("not,right at:all"),
    }
}

/// A text beyond a parameter's upper bound.
fn beyond(param: &Value) -> Option<String> {
    let high = param["bounds"][1].as_u64()?;
    Some(match param["type"].as_str()? {
        "duration" => format!("{}ms", high + 1),
        _ => (high + 1).to_string(),
    })
}

#[test]
fn p2_a_wrong_value_is_one_line_and_exit_2_by_flag_and_by_variable() {
    for case in modules() {
        for param in case.parameters() {
            let texts = [wrong_text(&param).map(str::to_owned), beyond(&param)];
            for text in texts.into_iter().flatten() {
                let flag = param["flag"].as_str().unwrap();
                let variable = param["variable"].as_str().unwrap();
                let given = format!("{flag}={text}");
                let shown = if param["secret"] == true {
                    "***"
                } else {
                    &text
                };
                let shown = shown.split(',').next().unwrap();
                // A parameter that the case gives too: the first wrong one is enough to refuse.
                let finished = refused(&case, &[&given], &[]);
                assert_one_line(&case, &given, &finished, &[flag, variable, shown]);
                let ours = case
                    .args
                    .iter()
                    .any(|arg| arg.starts_with(&format!("{flag}=")));
                if !ours && flag != "--admin" {
                    let finished = refused(&case, &[], &[(variable, &text)]);
                    assert_one_line(
                        &case,
                        &format!("{variable}={text}"),
                        &finished,
                        &[flag, variable, shown],
                    );
                }
            }
        }
    }
}

#[test]
fn p2_unknown_flags_and_missing_parameters_are_one_line_and_exit_2() {
    for case in modules() {
        let finished = refused(&case, &["--log-levle=info"], &[]);
        assert_one_line(
            &case,
            "an unknown flag",
            &finished,
            &["--log-levle", "--log-level"],
        );
        for param in case
            .parameters()
            .iter()
            .filter(|param| param["required"] == true)
        {
            let flag = param["flag"].as_str().unwrap();
            let mut args: Vec<&str> = vec![&case.name];
            args.extend(
                case.args
                    .iter()
                    .map(String::as_str)
                    .filter(|arg| !arg.starts_with(flag)),
            );
            let finished = run(&case.name, &mut command(&args));
            assert_one_line(&case, &format!("without {flag}"), &finished, &[flag]);
        }
    }
}

#[test]
fn p1_every_parameter_can_be_a_variable_and_a_flag_beats_it() {
    for case in modules() {
        let others = [
            ("PODKIT_LOG_LEVEL", "no such level"),
            ("PODKIT_DRAIN_TIMEOUT", "7s"),
        ];
        let module = case.start_with(&["--log-level=debug"], &others);
        let config = module.admin("/config").json();
        let parameter = |name: &str| config["parameters"][name].clone();
        assert_eq!(parameter("log-level")["value"], "debug", "{config}");
        assert_eq!(parameter("log-level")["origin"], "flag");
        assert_eq!(parameter("drain-timeout")["value"], "7s");
        assert_eq!(parameter("drain-timeout")["origin"], "variable");
        assert_eq!(parameter("lame-duck")["origin"], "default");
        for param in case.parameters() {
            assert!(
                !parameter(param["name"].as_str().unwrap()).is_null(),
                "{param} is not in /config"
            );
        }
    }
}

#[test]
fn p3_an_unknown_variable_is_a_warning_with_the_nearest_name() {
    for case in modules() {
        let module = case.start_with(
            &[],
            &[
                ("PODKIT_LOG_LEVLE", "x"),
                ("PODKIT_SERVICE_HOST", "10.0.0.1"),
            ],
        );
        let line = module
            .process
            .wait_line("the warning", |line| line.contains("PODKIT_LOG_LEVLE"));
        assert!(line.text.contains("PODKIT_LOG_LEVEL\""), "{}", line.text);
        assert!(line.text.contains("\"warn\""), "{}", line.text);
        module
            .process
            .wait_line("the other", |line| line.contains("PODKIT_SERVICE_HOST"));
    }
}

#[test]
fn p4_secrets_are_never_shown() {
    const SECRET: &str = "contract-s3cret-value";
    for case in modules() {
        let secrets: Vec<String> = case
            .parameters()
            .iter()
            .filter(|param| param["secret"] == true)
            .map(|param| param["variable"].as_str().unwrap().to_owned())
            .collect();
        let variables: Vec<(&str, &str)> =
            secrets.iter().map(|name| (name.as_str(), SECRET)).collect();
        let mut module = case.start_with(&["--log-level=trace"], &variables);
        for endpoint in case.surface["endpoints"].as_array().unwrap() {
            let path = endpoint["path"].as_str().unwrap();
            assert!(
                !module.admin(path).text().contains(SECRET),
                "{} {path}",
                case.name
            );
        }
        assert_eq!(module.process.stop(), 0, "{}", module.process.shown());
        assert!(!module.process.shown().contains(SECRET));
        assert!(!case.surface.to_string().contains(SECRET));
    }
}

#[test]
fn s1_every_module_runs_as_nobody_without_capabilities() {
    if !able(&[Need::Root, Need::Program("setpriv")]) {
        return;
    }
    // Where everybody may execute it.
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let copy = dir.path().join("podkit");
    std::fs::copy(binary(), &copy).unwrap();
    for case in modules() {
        if let Some(reloads) = &case.reloads {
            // A key that nobody may read is the business of another test.
            std::fs::set_permissions(&reloads.dir, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let admin = free_addr();
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--no-new-privs",
        ]);
        command
            .args(["--inh-caps=-all", "--bounding-set=-all"])
            .arg(&copy)
            .arg(&case.name);
        command
            .args(&case.args)
            .args(["--admin", &admin.to_string()])
            .current_dir("/");
        let mut module = Module {
            process: Process::spawn(&case.name, &mut command),
            admin,
        };
        module.wait_ready();
        let answered = until("an answer", || case.ask(&module).ok());
        // A webhook is not there to be read.
        assert!(
            [200, 301, 302, 405].contains(&answered.status),
            "{}: {}",
            case.name,
            answered.status
        );
        assert_eq!(http::get(admin, "/livez").unwrap().status, 200);
        assert_eq!(module.process.stop(), 0, "{}", module.process.shown());
    }
}
