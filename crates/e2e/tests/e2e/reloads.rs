//! `podkit config` beside nginx in a pod with one PID namespace: nginx is told of a new version by a signal, found by its name,
//! or by the agent around it.

use std::path::Path;

use podkit_testkit::net::loopback;
use podkit_testkit::podkit::Pod;
use podkit_testkit::{http, until};

use crate::ground::{Ground, events, log_of, manifest, process_of};

/// A whole configuration that answers this.
fn nginx(answer: &str) -> String {
    format!(
        "daemon off; user root; worker_processes 1; pid /tmp/nginx.pid; error_log stderr; events {{}}
http {{
    access_log off;
    client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c; uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e;
    server {{ listen 8080; return 200 {answer}; }}
}}
"
    )
}

/// A running pod, and where its configuration comes from.
struct Rig {
    ground: Ground,
    pod: Pod,
    source: tempfile::TempDir,
}

impl Rig {
    /// `config` and `app` are the security contexts of the two.
    fn start(flags: &[&str], config: &str, app: &str) -> Option<Self> {
        Self::start_as(
            "[nginx, -e, stderr, -c, /site/nginx.conf]",
            flags,
            config,
            app,
        )
    }

    fn start_as(command: &str, flags: &[&str], config: &str, app: &str) -> Option<Self> {
        let ground = Ground::with(&["nginx"])?;
        let source = tempfile::tempdir().unwrap();
        let dir = source.path();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir, open).unwrap();
        put(dir, &nginx("one"));
        let flags: String = flags.iter().map(|flag| format!("  - {flag}\n")).collect();
        let text = manifest(&format!(
            "\
shareProcessNamespace: true
initContainers:
- name: install
  image: podkit
  args: [install, /tools]
  volumeMounts: [{{name: tools, mountPath: /tools}}]
- name: first
  image: podkit
  args: [config, --once, '--source=file:/source', --out=/site]
  securityContext: {config}
  volumeMounts: [{{name: source, mountPath: /source}}, {{name: site, mountPath: /site}}]
- name: config
  image: podkit
  restartPolicy: Always
  args:
  - config
  - --source=file:/source
  - --out=/site
{flags}  securityContext: {config}
  volumeMounts:
  - {{name: source, mountPath: /source}}
  - {{name: site, mountPath: /site}}
  - {{name: agent, mountPath: /run/podkit-agent}}
containers:
- name: app
  image: none
  command: {command}
  ports: [{{containerPort: 8080}}]
  readinessProbe: {{httpGet: {{port: 8080}}, periodSeconds: 1}}
  securityContext: {app}
  volumeMounts:
  - {{name: tools, mountPath: /tools}}
  - {{name: site, mountPath: /site}}
  - {{name: scratch, mountPath: /tmp}}
  - {{name: agent, mountPath: /run/podkit-agent}}
volumes:
- name: tools
  emptyDir: {{}}
- name: agent
  emptyDir: {{}}
- name: source
  hostPath: {{path: {}}}
- name: site
  emptyDir: {{}}
- name: scratch
  emptyDir: {{}}",
            dir.display()
        ));
        let pod = Pod::run_text(&text, &["--backoff", "100ms"]);
        pod.wait_ready();
        let rig = Self {
            ground,
            pod,
            source,
        };
        rig.wait("one");
        Some(rig)
    }

    fn put(&self, config: &str) {
        put(self.source.path(), config);
    }

    fn wait(&self, answer: &str) {
        until(answer, || (page()? == answer).then_some(()));
    }

    /// The line of `config`'s log that has this part.
    fn said(&self, part: &str) -> String {
        until(part, || {
            let lines = log_of(&self.pod, "config");
            lines.into_iter().find(|line| line.contains(part))
        })
    }

    fn end(mut self) {
        assert_eq!(self.pod.stop(), 0, "{}", self.pod.process.shown());
        self.ground.assert_clean();
    }
}

/// Moves a configuration into the source.
fn put(source: &Path, config: &str) {
    let new = source.join("..new");
    std::fs::write(&new, config).unwrap();
    std::fs::rename(new, source.join("nginx.conf")).unwrap();
}

fn page() -> Option<String> {
    Some(http::get(loopback(8080), "/").ok()?.text())
}

const NOBODY: &str = "{runAsUser: 65534, runAsGroup: 65534, capabilities: {drop: [ALL]}}";
const OTHER: &str = "{runAsUser: 65532, runAsGroup: 65532, capabilities: {drop: [ALL]}}";
const BARE_ROOT: &str = "{runAsUser: 0, capabilities: {drop: [ALL]}}";
const ROOT_THAT_KILLS: &str = "{runAsUser: 0, capabilities: {drop: [ALL], add: [KILL]}}";

#[test]
fn a_process_is_told_by_its_name() {
    let Some(rig) = Rig::start(&["--reload=signal:HUP:nginx"], NOBODY, NOBODY) else {
        return;
    };
    let master = process_of(&rig.pod, "nginx: master");
    rig.put(&nginx("two"));
    rig.wait("two");
    assert_eq!(process_of(&rig.pod, "nginx: master"), master);
    rig.end();
}

#[test]
fn the_agent_judges_and_a_signal_or_the_agent_reloads() {
    let agent = "[/tools/podkit, agent, '--allow=nginx -e stderr -t -c *', '--allow=nginx -e stderr -s reload -c *', --, nginx, -e, stderr, -c, /site/nginx.conf]";
    for reload in [
        "--reload=signal:HUP:nginx",
        // The agent passes it on.
        "--reload=signal:HUP:podkit",
        "--reload=agent:nginx -e stderr -s reload -c {}/nginx.conf",
    ] {
        let flags = [
            "--validate=agent:nginx -e stderr -t -c {}/nginx.conf",
            reload,
        ];
        let Some(rig) = Rig::start_as(agent, &flags, NOBODY, NOBODY) else {
            return;
        };
        let master = process_of(&rig.pod, "nginx: master");
        rig.put(&nginx("two").replace("listen", "listne"));
        let line = rig
            .said("validate: nginx -e stderr -t -c /site/..podkit/new-1/nginx.conf: exit code 1");
        assert!(line.contains("unknown directive \\\"listne\\\""), "{line}");
        assert_eq!(page().as_deref(), Some("one"));
        rig.put(&nginx("three"));
        rig.wait("three");
        assert_eq!(process_of(&rig.pod, "nginx: master"), master);
        rig.end();
    }
}

#[test]
fn a_killed_application_starts_with_what_is_published() {
    let flags = [
        "--reload=signal:KILL:nginx",
        "--confirm=http:http://127.0.0.1:8080/",
        "--confirm-timeout=3s",
    ];
    let Some(rig) = Rig::start(&flags, "{}", "{}") else {
        return;
    };
    let starts = || {
        let all = events(&rig.pod, &["Started"]);
        all.iter().filter(|event| *event == "app Started").count()
    };
    assert_eq!(starts(), 1);
    // Workers outlive a master that is killed, and would answer for a moment.
    let alone = |answer| nginx(answer).replace("daemon off;", "daemon off; master_process off;");
    rig.put(&alone("two"));
    rig.wait("two");
    assert_eq!(starts(), 2, "{}", rig.pod.process.shown());
    rig.said("\"version\":\"00000002");
    // It doesn't start with this; whether it just tries when it is to be killed again is chance.
    rig.put(&alone("three").replace("listen", "listne"));
    let line = rig.said("confirm: not within 3000 ms: http://127.0.0.1:8080/");
    assert!(line.contains(" is back"), "{line}");
    rig.wait("two");
    rig.end();
}

#[test]
fn another_users_process_is_told_by_who_may() {
    let flags = ["--reload=signal:HUP:nginx"];
    for (config, uid, remedy) in [
        (OTHER, 65_532, "root for this one, with the capability KILL"),
        (BARE_ROOT, 0, "the capability KILL"),
    ] {
        let Some(rig) = Rig::start(&flags, config, NOBODY) else {
            return;
        };
        rig.put(&nginx("two"));
        let line = rig.said("reload: signal:HUP:nginx: nginx (process ");
        let expected = format!(
            "runs as user 65534 and this as user {uid}; expected the same user for both, or {remedy}\"}}"
        );
        assert!(line.ends_with(&expected), "{line}");
        assert!(line.contains("refused; 00000001-"), "{line}");
        assert_eq!(page().as_deref(), Some("one"));
        rig.end();
    }
    let Some(rig) = Rig::start(&flags, ROOT_THAT_KILLS, NOBODY) else {
        return;
    };
    rig.put(&nginx("two"));
    rig.wait("two");
    rig.end();
}
