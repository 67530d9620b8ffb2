//! `podkit agent` around nginx in a pod, in a root file system of its own.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use podkit_testkit::images::archive;
use podkit_testkit::podkit::Pod;
use podkit_testkit::process::run;
use podkit_testkit::until;
use rustix::process::Signal;
use serde_json::json;

use crate::agent::ask;
use crate::ground::{Ground, is_state, manifest, process_of};

/// A program and the libraries it needs, below a directory, under their own paths.
fn with_libraries(root: &Path, program: &str) {
    let program = podkit_testkit::program(program).unwrap();
    let needed = run("ldd", Command::new("ldd").arg(&program)).ok();
    let libraries = needed
        .split_ascii_whitespace()
        .filter(|word| word.starts_with('/'));
    for file in libraries.map(Path::new).chain([program.as_path()]) {
        let to = root.join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, to).unwrap();
    }
}

const NGINX: &str = "\
daemon off; master_process on; pid /run/nginx.pid; error_log stderr;
events {}
http { access_log off; server { listen unix:/run/ask/web.sock; return 200 ANSWER; } }
";

#[test]
fn nginx_in_a_pod_is_validated_and_reloaded_by_it() {
    let Some(ground) = Ground::with(&["nginx", "ldd", "tar", "sha256sum"]) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    for made in ["run", "tmp", "etc/nginx", "var/log/nginx", "var/lib/nginx"] {
        fs::create_dir_all(root.join(made)).unwrap();
    }
    with_libraries(&root, "nginx");
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/:/none\nnobody:x:65534:65534::/:/none\n",
    )
    .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n").unwrap();
    let image = archive(dir.path(), "example/nginx:1", &["root"], &json!({}));
    let shared = dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let config = |name: &str, text: &str| fs::write(shared.join(name), text).unwrap();
    config("nginx.conf", &NGINX.replace("ANSWER", "one"));
    config("bad.conf", &NGINX.replace("listen", "listne"));
    let nginx = podkit_testkit::program("nginx").unwrap();
    let text = manifest(&format!(
        "\
restartPolicy: Never
initContainers:
- name: install
  image: podkit
  args: [install, /tools]
  volumeMounts: [{{name: tools, mountPath: /tools}}]
containers:
- name: app
  image: example/nginx:1
  command: [/tools/podkit, agent, --socket=/run/ask/agent.sock]
  args:
  - --allow={nginx} -t -c *
  - --allow={nginx} -s reload *
  - --
  - {nginx}
  - -c
  - /run/ask/nginx.conf
  - -g
  - user nobody nogroup;
  volumeMounts:
  - {{name: tools, mountPath: /tools}}
  - {{name: ask, mountPath: /run/ask}}
volumes:
- name: tools
  emptyDir: {{}}
- name: ask
  hostPath: {{path: {}}}",
        shared.display(),
        nginx = nginx.display(),
    ));
    let source = format!("--image=app=docker-archive:{}", image.display());
    let mut pod = Pod::run_text(&text, &[&source, "--allow-privileged"]);
    pod.wait_ready();
    let web = shared.join("web.sock");
    let page = || {
        let mut stream = UnixStream::connect(&web).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        std::io::read_to_string(stream).ok()
    };
    until("the first page", || {
        page().filter(|page| page.ends_with("one"))
    });
    let socket = shared.join("agent.sock");
    let nginx = nginx.to_str().unwrap();
    let said = ask(&socket, 10_000, &[nginx, "-t", "-c", "/run/ask/bad.conf"]);
    assert_eq!(said["outcome"], json!({"exited": 1}), "{said}");
    assert!(
        said["output"]
            .as_str()
            .unwrap()
            .contains("unknown directive \"listne\""),
        "{said}"
    );
    config("nginx.conf", &NGINX.replace("ANSWER", "two"));
    let said = ask(&socket, 10_000, &[nginx, "-t", "-c", "/run/ask/nginx.conf"]);
    assert_eq!(said["outcome"], json!({"exited": 0}), "{said}");
    let said = ask(
        &socket,
        10_000,
        &[nginx, "-s", "reload", "-c", "/run/ask/nginx.conf"],
    );
    assert_eq!(said["outcome"], json!({"exited": 0}), "{said}");
    until("the second page", || {
        page().filter(|page| page.ends_with("two"))
    });
    // A reload by the signal, as a neighbour sends it.
    config("nginx.conf", &NGINX.replace("ANSWER", "three"));
    let agent = process_of(&pod, "/tools/podkit agent").unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(agent).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::HUP).unwrap();
    until("the third page", || {
        page().filter(|page| page.ends_with("three"))
    });
    let said = ask(&socket, 10_000, &[nginx, "-s", "stop"]);
    assert!(said["outcome"]["refused"].is_string(), "{said}");
    assert_eq!(pod.stop(), 0, "{}", pod.process.shown());
    let ended = pod
        .said()
        .into_iter()
        .find(|said| is_state(said, "app", "terminated"));
    assert_eq!(ended.map(|said| said["exitCode"].clone()), Some(json!(0)));
    ground.assert_clean();
}
