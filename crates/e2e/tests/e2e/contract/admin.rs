//! The admin server: A1 to A4, P5 and G1 of the contract.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use podkit_testkit::net::OwnNetwork;
use podkit_testkit::podkit::Module;
use podkit_testkit::{Need, able, http, until};

use super::{Case, modules};
use crate::openmetrics;

#[test]
fn a1_the_probes_say_yes_and_list_their_checks() {
    for case in modules() {
        let module = case.start(&[]);
        for path in ["/livez", "/readyz", "/healthz"] {
            assert_eq!(module.admin(path).status, 200, "{} {path}", case.name);
            let verbose = module.admin(&format!("{path}?verbose"));
            assert_eq!(verbose.status, 200);
            assert!(
                verbose.text().lines().any(|line| line.contains("ok")),
                "{}",
                verbose.text()
            );
        }
    }
}

#[test]
fn a2_metrics_parse_in_both_formats_and_have_what_all_have() {
    const ALL: &[&str] = &[
        "podkit_ready",
        "podkit_config_generation",
        "podkit_reloads_total",
        "podkit_last_reload_success",
        "podkit_last_reload_timestamp_seconds",
        "podkit_in_flight",
        "podkit_build_info",
        "podkit_config_info",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ];
    for case in modules() {
        let module = case.start(&[]);
        case.ask(&module).unwrap();
        let open = "application/openmetrics-text; version=1.0.0";
        for (accept, is_open) in [("text/plain", false), ("*/*", false), (open, true)] {
            let answer =
                http::get_with(module.admin, "/metrics", &format!("Accept: {accept}\r\n")).unwrap();
            let kind = answer.header("content-type").unwrap();
            assert_eq!(
                kind.starts_with("application/openmetrics-text"),
                is_open,
                "{kind}"
            );
            let samples = openmetrics::parse(&answer.text(), is_open)
                .unwrap_or_else(|why| panic!("{} as {accept}: {why}", case.name));
            for name in ALL {
                let there = samples
                    .keys()
                    .any(|key| key.split('{').next() == Some(name));
                assert!(there, "{} has no {name}", case.name);
            }
            assert_eq!(samples["podkit_ready"], 1.0);
            assert!(samples["process_resident_memory_bytes"] > 1e5);
        }
    }
}

/// Every family that is shown is documented.
#[test]
fn p5_metrics_are_in_explain() {
    for case in modules() {
        let documented: BTreeSet<String> = case.surface["metrics"]
            .as_array()
            .unwrap()
            .iter()
            .map(|metric| metric["name"].as_str().unwrap().to_owned())
            .collect();
        let module = case.start(&[]);
        case.ask(&module).unwrap();
        let page = module.admin("/metrics").text();
        let shown = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        for family in shown {
            assert!(
                documented.contains(family),
                "{}: {family} is not in explain",
                case.name
            );
        }
    }
}

#[test]
fn a3_pages_are_closed_to_the_pods_address_and_a4_nothing_changes_over_tcp() {
    if !able(&[Need::Root, Need::Program("ip")]) {
        return;
    }
    let _network = OwnNetwork::enter();
    for case in modules() {
        let module = case.start(&[]);
        let mut own = case.start_on_all_addresses(&[]);
        let far = SocketAddr::new(OwnNetwork::ADDRESS, own.admin.port());
        for endpoint in case.surface["endpoints"].as_array().unwrap() {
            let path = endpoint["path"].as_str().unwrap();
            let (near, away) = (own.admin(path).status, http::get(far, path).unwrap().status);
            if endpoint["open"] == true {
                assert_eq!(away, 200, "{} {path} from the pod's address", case.name);
            } else {
                assert_eq!(away, 403, "{} {path} from the pod's address", case.name);
                assert_ne!(near, 403, "{} {path} from the loopback", case.name);
            }
        }
        for path in ["/reload", "/drain", "/", "/config"] {
            for addr in [far, own.admin] {
                let status = http::send(addr, "POST", path, "text/plain", b"")
                    .unwrap()
                    .status;
                assert!(
                    (400..500).contains(&status),
                    "{} POST {path} at {addr}: {status}",
                    case.name
                );
            }
        }
        assert_eq!(own.admin("/readyz").status, 200);
        assert_eq!(
            own.metric("podkit_reloads_total{result=\"success\"}"),
            Some(0.0)
        );
        assert_eq!(own.process.stop(), 0);
        drop(module);

        let open = case.start_on_all_addresses(&["--admin-open"]);
        let far = SocketAddr::new(OwnNetwork::ADDRESS, open.admin.port());
        assert_eq!(
            http::get(far, "/config").unwrap().status,
            200,
            "{}",
            case.name
        );
    }
}

impl Case {
    /// As in a pod: its admin server on `:PORT`; what it serves on another port than the case's first process.
    fn start_on_all_addresses(&self, more: &[&str]) -> Module {
        let port = podkit_testkit::net::free_addr().port();
        let mut args = vec![self.name.clone(), format!("--admin=:{port}")];
        let door = match self.name.as_str() {
            "git-sync" => "--webhook=",
            _ => "--listen=",
        };
        args.extend(
            self.args
                .iter()
                .filter(|arg| !arg.starts_with(door))
                .cloned(),
        );
        // A place has one process that publishes to it.
        if let Some(root) = args.iter_mut().find(|arg| arg.starts_with("--root=")) {
            root.push_str("/other");
        }
        let listen = podkit_testkit::net::free_addr().to_string();
        match args.iter_mut().find(|arg| arg.starts_with("--chain-file=")) {
            // Its listeners are in its file.
            Some(arg) => {
                let text = std::fs::read_to_string(&arg["--chain-file=".len()..]).unwrap();
                let file = format!("{}.other", &arg["--chain-file=".len()..]);
                std::fs::write(&file, text.replace(&self.serves.to_string(), &listen)).unwrap();
                *arg = format!("--chain-file={file}");
            }
            None if self.listens => args.push(format!("{door}{listen}")),
            None => match args.iter_mut().find(|arg| arg.starts_with("--out=")) {
                Some(out) => out.push_str("-other"),
                None => args.push(format!("{door}{listen}")),
            },
        }
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let process = podkit_testkit::process::Process::spawn(
            &self.name,
            &mut podkit_testkit::podkit::command(&args),
        );
        let admin = podkit_testkit::net::loopback(port);
        let module = Module { process, admin };
        module.wait_ready();
        module
    }
}

#[test]
fn a4_the_admin_socket_reloads_and_drains() {
    for case in modules() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("admin.sock");
        let mut module = case.start(&[&format!("--admin-socket={}", socket.display())]);
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", case.name);
        assert!(
            post(&socket, "/reload").starts_with("HTTP/1.1 20"),
            "{}",
            case.name
        );
        until("the reload", || {
            (module.metric("podkit_reloads_total{result=\"success\"}") == Some(1.0)).then_some(())
        });
        assert!(
            post(&socket, "/drain").starts_with("HTTP/1.1 20"),
            "{}",
            case.name
        );
        assert_eq!(
            module.process.wait().code(),
            Some(0),
            "{}",
            module.process.shown()
        );
        assert!(!socket.exists(), "{}: its socket stays", case.name);
    }
}

fn post(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn g1_logs_are_json_lines_or_text() {
    for case in modules() {
        let mut module = case.start(&["--log-format=json", "--log-level=debug"]);
        assert_eq!(module.process.stop(), 0);
        let lines = module.process.lines();
        assert!(!lines.is_empty());
        for line in lines {
            let value: serde_json::Value = serde_json::from_str(&line.text).unwrap();
            assert_eq!(value["module"], case.name.as_str(), "{value}");
            for field in ["ts", "level", "msg"] {
                assert!(value[field].is_string(), "{value}");
            }
        }
        let module = case.start(&["--log-format=text"]);
        let line = module.process.wait_line("a line", |_| true);
        assert!(!line.text.starts_with('{'), "{}", line.text);
    }
}
