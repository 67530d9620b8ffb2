//! The module contract (docs/module-contract.md), held against every module that `podkit explain -o json` lists. The names of
//! the tests begin with the numbers of its clauses.

mod admin;
mod life;
mod parameters;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use podkit_testkit::certs::Authority;
use podkit_testkit::git;
use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::Module;
use podkit_testkit::tls::Client;
use podkit_testkit::{Turn, http};
use serde_json::Value;

use crate::docs::surface;

/// What a module needs to start, and how it is used. A module that is registered and has no case here fails every test.
struct Case {
    name: String,
    /// Its part of `podkit explain -o json`.
    surface: Value,
    /// What it must be given besides `--admin`.
    args: Vec<String>,
    /// Where it serves, and how it is asked there.
    serves: SocketAddr,
    /// It serves HTTP there; otherwise its admin server is asked instead.
    listens: bool,
    tls: bool,
    /// Whether a request takes as long as was said, so that it can be in flight.
    slow: bool,
    /// A file whose contents it takes at a reload, when it has one.
    reloads: Option<Reloads>,
    /// What it stands in front of.
    _upstream: Option<Module>,
    _dir: tempfile::TempDir,
    /// Others may run beside it, tests that want the machine for themselves not.
    _turn: Turn,
}

/// A pair of files that a module reads again.
struct Reloads {
    dir: PathBuf,
    authority: Authority,
}

impl Reloads {
    /// Puts a good new pair there.
    fn good(&self) -> Vec<u8> {
        let pair = self.authority.server(&["localhost"]);
        pair.write(&self.dir, "tls");
        podkit_testkit::tls::der(&pair.cert)
    }

    /// Puts a pair there that does not match.
    fn bad(&self) {
        let pair = self.authority.server(&["localhost"]).mismatched();
        pair.write(&self.dir, "tls");
    }
}

impl Case {
    /// Starts it, with these arguments more, and waits until it is ready.
    fn start(&self, more: &[&str]) -> Module {
        self.start_with(more, &[])
    }

    fn start_with(&self, more: &[&str], variables: &[(&str, &str)]) -> Module {
        let mut args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        args.extend(more);
        Module::start(&self.name, &args, variables)
    }

    /// Where it is asked.
    fn place(&self, module: &Module) -> SocketAddr {
        if self.listens {
            self.serves
        } else {
            module.admin
        }
    }

    /// Asks it for `/` where it serves, on a connection of its own.
    fn ask(&self, module: &Module) -> std::io::Result<http::Response> {
        if self.tls {
            Client::trusting().get(self.serves, "localhost", "/")
        } else {
            http::get(self.place(module), "/")
        }
    }

    /// Its parameters, as `explain` shows them.
    fn parameters(&self) -> Vec<Value> {
        self.surface["parameters"]
            .as_array()
            .expect("parameters")
            .clone()
    }
}

/// Every registered module.
fn modules() -> Vec<Case> {
    modules_that_take("0s")
}

/// The same; the application takes so long to answer.
fn modules_that_take(delay: &str) -> Vec<Case> {
    let surface = surface();
    let modules = surface["modules"].as_array().expect("modules");
    assert!(!modules.is_empty());
    modules.iter().map(|surface| case(surface, delay)).collect()
}

fn case(surface: &Value, delay: &str) -> Case {
    let name = surface["name"].as_str().expect("a name").to_owned();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let serves = free_addr();
    let listen = format!("--listen={serves}");
    let turn = Turn::shared();
    let listens = !matches!(name.as_str(), "config" | "shard" | "redis");
    let (args, tls, slow, reloads, upstream) = match name.as_str() {
        "echo" => (
            vec![listen, format!("--delay={delay}")],
            false,
            true,
            None,
            None,
        ),
        "limit" => {
            let application = free_addr();
            let args = [
                format!("--listen={application}"),
                format!("--delay={delay}"),
            ];
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let upstream = Module::start("echo", &args, &[]);
            let args = vec![
                listen,
                format!("--upstream={application}"),
                "--rule=name=all key=ip rate=1000/s".to_owned(),
            ];
            (args, false, true, None, Some(upstream))
        }
        "config" => {
            let source = dir.path().join("source");
            std::fs::create_dir(&source).expect("a new directory");
            // Whoever it runs as publishes there.
            std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777))
                .expect("it is ours");
            std::fs::write(source.join("app.conf"), "a").expect("a new file");
            let args = vec![
                format!("--source=file:{}", source.display()),
                format!("--out={}", dir.path().join("out").display()),
            ];
            (args, false, false, None, None)
        }
        "git-sync" => {
            let app = git::Repository::new(dir.path(), "app");
            app.write("index.html", "a");
            app.publish("first");
            let secret = dir.path().join("secret");
            std::fs::write(&secret, "secret").expect("a new file");
            let root = dir.path().join("root");
            std::fs::create_dir(&root).expect("a new directory");
            // Whoever runs it writes there.
            std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o777))
                .expect("it is ours");
            let args = vec![
                format!("--repo={}", app.bare.display()),
                format!("--root={}", root.display()),
                format!("--webhook={serves}"),
                format!("--webhook-secret-file={}", secret.display()),
            ];
            (args, false, false, None, None)
        }
        "redis" => {
            let args = vec![listen, "--primary=127.0.0.1:1".to_owned()];
            (args, false, false, None, None)
        }
        "shard" => {
            let args = vec![listen, "--shard=a=127.0.0.1:1".to_owned()];
            (args, false, false, None, None)
        }
        "metrics" => {
            let args = vec![listen, "--source=nginx+http://127.0.0.1:1".to_owned()];
            (args, false, false, None, None)
        }
        "health" => {
            let args = vec![listen, "--probe=a=tcp://127.0.0.1:1".to_owned()];
            (args, false, false, None, None)
        }
        "topz" => (vec![listen], false, false, None, None),
        "tls" | "balance" | "chain" => {
            let application = free_addr();
            let args = [
                format!("--listen={application}"),
                format!("--delay={delay}"),
            ];
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let upstream = Module::start("echo", &args, &[]);
            let reloads = Reloads {
                dir: dir.path().to_owned(),
                authority: Authority::new("contract"),
            };
            reloads.good();
            let file = |name: &str| dir.path().join(name).display().to_string();
            let args = if name == "chain" {
                let text = format!(
                    "listen: '{serves}'\ntls: {{cert: {}, key: {}}}\nstages:\n  all:\n    limit: {{rule: name=all key=ip rate=1000/s}}\n  \
                     web:\n    balance: {{upstream: '{application}'}}\nroutes:\n- stages: [all, web]\n",
                    file("tls.crt"),
                    file("tls.key")
                );
                std::fs::write(file("chain.yaml"), text).expect("a new file");
                vec![format!("--chain-file={}", file("chain.yaml"))]
            } else {
                vec![
                    listen,
                    format!("--upstream={application}"),
                    format!("--cert={}", file("tls.crt")),
                    format!("--key={}", file("tls.key")),
                ]
            };
            (args, true, true, Some(reloads), Some(upstream))
        }
        _ => panic!("the module {name} has no case here: say how it is started and used"),
    };
    Case {
        name,
        surface: surface.clone(),
        args,
        serves,
        listens,
        tls,
        slow,
        reloads,
        _upstream: upstream,
        _dir: dir,
        _turn: turn,
    }
}
