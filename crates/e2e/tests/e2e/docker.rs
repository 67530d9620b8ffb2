//! A real Docker Engine, started for the test: it runs podkit's own image, and podkit runs what it has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::{Module, binary, command, podkit};
use podkit_testkit::process::{Finished, Process, run};
use podkit_testkit::program;
use podkit_testkit::tls::Client;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;

use crate::compose_tls::{compose, environment};
use crate::ground::{Ground, manifest};

/// Below this the engine puts its containers' cgroups.
const CGROUP: &str = "podkit-e2e-docker";

/// Without a network of its own: containers have that of the test.
struct Engine {
    dir: tempfile::TempDir,
    dockerd: Process,
    ground: Ground,
}

impl Engine {
    fn new() -> Option<Self> {
        let programs = ["dockerd", "containerd", "runc", "docker", "busybox", "tar"];
        let ground = Ground::with(&programs)?;
        let dir = tempfile::Builder::new().prefix("podkit-docker-").tempdir();
        let dir = dir.unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut dockerd = Command::new(program("dockerd")?);
        dockerd
            .args([
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
                "--storage-driver=vfs",
            ])
            .arg("--cgroup-parent")
            .arg(CGROUP)
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .args(["--host", &host(dir.path())]);
        let dockerd = Process::spawn("dockerd", &mut dockerd);
        dockerd.wait_line("the API", |line| line.contains("API listen on"));
        Some(Self {
            dir,
            dockerd,
            ground,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn docker(&self, args: &[&str]) -> Finished {
        run("docker", &mut self.command(args))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("docker").unwrap());
        command
            .args(args)
            .env("DOCKER_HOST", host(self.dir.path()))
            .env("DOCKER_CONFIG", self.path("config"));
        command
    }

    /// Loads podkit's own image; its name.
    fn load_podkit(&self) -> String {
        let archive = self.path("podkit.tar").display().to_string();
        let output = format!("docker-archive:{archive}");
        podkit(&["image", "build", "-o", &output]).ok();
        let loaded = self.docker(&["load", "-i", &archive]).ok();
        let name = loaded.trim().strip_prefix("Loaded image: ");
        name.unwrap_or_else(|| panic!("{loaded}")).to_owned()
    }

    /// An image with a shell, a user and a command.
    fn import(&self, name: &str) {
        let bin = self.path("files/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy(program("busybox").unwrap(), bin.join("sh")).unwrap();
        let archive = self.path("files.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(self.path("files")).arg("-cf");
        run("tar", tar.arg(&archive).arg(".")).ok();
        let archive = archive.display().to_string();
        let change = |text: &'static str| ["--change", text];
        let args = [
            &["import"][..],
            &change("CMD [\"/bin/sh\", \"-c\", \"echo $GREETING from $(id -u)\"]"),
            &change("USER 1234"),
            &change("ENV GREETING=hello"),
            &[&archive, name],
        ];
        self.docker(&args.concat()).ok();
    }

    fn end(mut self) {
        self.stop();
        self.ground.assert_clean();
    }

    fn stop(&mut self) {
        // It ends what it has started.
        if !self.dockerd.has_ended() {
            self.dockerd.signal(Signal::TERM);
            self.dockerd.ends_within(Duration::from_secs(20));
        }
        // But leaves the network namespace that it calls the host's, and its cgroups. Version 1 has one for each controller.
        let _missing = unmount(self.path("exec/netns/default"), UnmountFlags::DETACH);
        let root = Path::new("/sys/fs/cgroup");
        for below in fs::read_dir(root).into_iter().flatten().flatten() {
            let _missing = fs::remove_dir(below.path().join(CGROUP));
        }
        let _missing = fs::remove_dir(root.join(CGROUP));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

fn host(dir: &Path) -> String {
    format!("unix://{}", dir.join("docker.sock").display())
}

/// As examples/compose-tls says, but for the network.
#[test]
fn docker_runs_the_image_that_podkit_builds() {
    let Some(engine) = Engine::new() else { return };
    let image = engine.load_podkit();
    let compose = compose();
    let service = &compose["services"]["tls"];
    assert_eq!(service["image"], image);
    let (listen, app) = (free_addr(), free_addr());
    let echo = Module::start("echo", &["--listen", &app.to_string()], &[]);
    let mut variables = environment(service);
    variables.insert("PODKIT_LISTEN".to_owned(), listen.to_string());
    variables.insert("PODKIT_UPSTREAM".to_owned(), app.to_string());
    let mut args = vec!["run", "-d", "--name", "tls", "--network", "host"];
    args.extend(["--read-only", "--cap-drop", "ALL", "--stop-timeout", "30"]);
    args.extend(["--security-opt", "no-new-privileges:true"]);
    let certs = engine.path("certs");
    fs::create_dir(&certs).unwrap();
    let volume = format!("{}:/certs:ro", certs.display());
    args.extend(["-v", &volume]);
    let given: Vec<String> = variables
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    args.extend(given.iter().flat_map(|given| ["-e", given]));
    args.extend([image.as_str(), "tls"]);
    engine.docker(&args).ok();
    let logs = Process::spawn(
        "docker logs",
        engine.command(&["logs", "-f", "tls"]).stdin(Stdio::null()),
    );
    logs.wait_line("its start", |line| line.contains("\"started\""));
    let page = Client::trusting().get(listen, "localhost", "/").unwrap();
    assert_eq!(page.status, 200, "{}", logs.shown());
    engine.docker(&["stop", "tls"]).ok();
    let code = engine.docker(&["inspect", "-f", "{{.State.ExitCode}}", "tls"]);
    assert_eq!(code.ok().trim(), "0", "{}", logs.shown());
    engine.docker(&["rm", "tls"]).ok();
    drop((logs, echo));
    engine.end();
}

#[test]
fn podkit_runs_what_docker_has() {
    let Some(engine) = Engine::new() else { return };
    let own = engine.load_podkit();
    engine.import("e2e/hello:1");
    let state = engine.path("state").display().to_string();
    let spec = "restartPolicy: Never
containers:
- name: hello
  image: elsewhere.example/hello
- name: own
  image: elsewhere.example/podkit:9
  args: [--version]";
    let file = engine.path("pod.yaml");
    fs::write(&file, manifest(spec)).unwrap();
    let pod = |hello: &str| {
        let own = format!("own=docker-daemon:{own}");
        let hello = format!("hello=docker-daemon:{hello}");
        let file = file.display().to_string();
        let args = [
            "run",
            "--state-dir",
            &state,
            "--image",
            &own,
            "--image",
            &hello,
            &file,
        ];
        run(
            "podkit run",
            command(&args).env("DOCKER_HOST", host(engine.dir.path())),
        )
    };
    let said = pod("e2e/hello:1").ok();
    assert!(said.contains("hello from 1234"), "{said}");
    let version = run("podkit", Command::new(binary()).arg("--version")).ok();
    assert!(said.contains(version.trim()), "{said}");
    engine.end();
}
