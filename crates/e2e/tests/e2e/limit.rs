//! `podkit limit` in front of real servers.

use std::net::SocketAddr;

use podkit_testkit::browser::Browser;
use podkit_testkit::certs::Authority;
use podkit_testkit::http::{self, Response};
use podkit_testkit::net::free_addr;
use podkit_testkit::peers::{self, Server};
use podkit_testkit::podkit::Module;
use podkit_testkit::process::run;
use podkit_testkit::tls::{Client, Options};
use podkit_testkit::{Need, Turn, able, until};

/// nginx that says whom it was told of, and podkit in front of it. None where there is no nginx.
struct Rig {
    limit: Module,
    front: SocketAddr,
    _nginx: Server,
    _turn: Turn,
}

impl Rig {
    fn start(args: &[&str]) -> Option<Self> {
        if !able(&[Need::Program("nginx")]) {
            return None;
        }
        let turn = Turn::shared();
        let (back, front) = (free_addr(), free_addr());
        let http = format!(
            "server {{ listen {back}; location / {{ default_type text/plain; return 200 \"for $http_x_forwarded_for\\n\"; }} }}"
        );
        let nginx = peers::nginx(&http, None, back, None);
        let (listen, upstream) = (format!("--listen={front}"), format!("--upstream={back}"));
        let mut all = vec![listen.as_str(), upstream.as_str(), "--workers=2"];
        all.extend(args);
        Some(Self {
            limit: Module::start("limit", &all, &[]),
            front,
            _nginx: nginx,
            _turn: turn,
        })
    }

    fn get(&self, path: &str, headers: &str) -> Response {
        http::get_with(self.front, path, headers).unwrap()
    }

    fn statuses(&self, count: usize, path: &str, headers: &str) -> Vec<u16> {
        (0..count).map(|_| self.get(path, headers).status).collect()
    }

    fn counted(&self, rule: &str, result: &str) -> u64 {
        counted(&self.limit, rule, result)
    }
}

fn counted(limit: &Module, rule: &str, result: &str) -> u64 {
    let metrics = limit.admin("/metrics").text();
    let wanted = format!("podkit_limit_requests_total{{rule=\"{rule}\",result=\"{result}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&wanted));
    line.unwrap_or_else(|| panic!("no {wanted}in\n{metrics}"))
        .parse()
        .unwrap()
}

#[test]
fn a_burst_passes_and_the_rest_is_told_when_to_come_again() {
    let rule = "name=api key=ip rate=6/m burst=3 path=/api/*";
    let Some(rig) = Rig::start(&["--rule", rule]) else {
        return;
    };
    let first = rig.get("/api/x", "");
    assert_eq!(
        (first.status, first.text().as_str()),
        (200, "for 127.0.0.1\n")
    );
    let field = |answer: &Response, name: &str| answer.header(name).unwrap_or("none").to_owned();
    assert_eq!(field(&first, "RateLimit-Policy"), "\"api\";q=3;w=30");
    assert_eq!(field(&first, "RateLimit"), "\"api\";r=2;t=10");
    assert_eq!(field(&first, "X-RateLimit-Limit"), "3");
    assert_eq!(field(&first, "X-RateLimit-Remaining"), "2");
    assert_eq!(field(&first, "X-RateLimit-Reset"), "10");
    // As an application would read the path, whatever way it is written.
    assert_eq!(rig.statuses(2, "/%61pi//y", ""), [200, 200]);
    let refused = rig.get("/api/x", "Accept: application/json\r\n");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["status"], 429);
    assert_eq!(refused.json()["violated-policies"][0], "api");
    assert_eq!(field(&refused, "Content-Type"), "application/problem+json");
    assert_eq!(field(&refused, "X-RateLimit-Remaining"), "0");
    let after: u64 = field(&refused, "Retry-After").parse().unwrap();
    assert!((1..=10).contains(&after), "{after}");
    // draft-ietf-httpapi-ratelimit-headers section 6: not later than what Retry-After says.
    let limit = field(&refused, "RateLimit");
    assert_eq!(limit, format!("\"api\";r=0;t={after}"));
    // Other paths are not counted, and what nobody trusts says nothing about who asks.
    let other = rig.get("/other", "");
    assert_eq!((other.status, other.header("RateLimit")), (200, None));
    assert_eq!(
        rig.get("/api/x", "X-Forwarded-For: 9.9.9.9\r\n").status,
        429
    );
    assert_eq!(
        (rig.counted("api", "allowed"), rig.counted("api", "limited")),
        (3, 2)
    );
    let page = rig.limit.admin("/").text();
    assert!(page.contains("rate=6/m burst=3"), "{page}");
}

#[test]
fn keys_shadow_and_proxies() {
    let Some(rig) = Rig::start(&[
        "--rule=name=ip key=ip rate=1/h burst=2; name=user key=header:X-User rate=1/h burst=1 path=/user",
        "--rule=name=watched key=global rate=1/h burst=1 path=/shadow shadow=true",
        "--trusted-proxy=127.0.0.0/8,10.0.0.0/8",
        "--headers=none",
    ]) else {
        return;
    };
    let from = |addr: &str| format!("X-Forwarded-For: {addr}\r\n");
    // The last that is no proxy of ours; what stands before it may be made up.
    let told = rig.get("/", &from("7.7.7.7, 1.1.1.1, 10.0.0.9"));
    assert_eq!(told.text(), "for 7.7.7.7, 1.1.1.1, 10.0.0.9, 127.0.0.1\n");
    assert_eq!(rig.statuses(2, "/", &from("8.8.8.8, 1.1.1.1")), [200, 429]);
    assert_eq!(rig.statuses(2, "/", &from("2001:db8::1")), [200, 200]);
    assert_eq!(rig.get("/", &from("2001:db8::ffff")).status, 429);
    assert_eq!(rig.get("/", &from("2001:db8:0:1::")).status, 200);
    // Leaving the field out is no way past a rule.
    let user = |addr: &str, user: &str| rig.get("/user", &format!("{}{user}", from(addr))).status;
    assert_eq!(user("3.0.0.1", "X-User: a\r\n"), 200);
    assert_eq!(user("3.0.0.2", "X-User: a\r\n"), 429);
    assert_eq!(user("3.0.0.3", "X-User: b\r\n"), 200);
    assert_eq!((user("3.0.0.4", ""), user("3.0.0.5", "")), (200, 429));
    let shadow = |addr: &str| rig.get("/shadow", &from(addr));
    assert_eq!(
        (shadow("4.0.0.1").status, shadow("4.0.0.2").status),
        (200, 200)
    );
    assert_eq!(rig.counted("watched", "shadow"), 1);
    assert_eq!(shadow("4.0.0.3").header("RateLimit"), None);
}

#[test]
fn files_are_followed_and_a_mistake_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    // As an editor does it: a whole new file in place of the old one.
    let write = |name: &str, text: &str| {
        std::fs::write(file("new"), text).unwrap();
        std::fs::rename(file("new"), file(name)).unwrap();
    };
    write(
        "rules",
        "- name: slow\n  key: ip\n  rate: 1/h\n  burst: 2\n",
    );
    write("allow", "192.0.2.0/24 # ours\n");
    write("deny", "198.51.100.7\n");
    let arg = |name: &str, file_name: &str| format!("--{name}={}", file(file_name).display());
    let args = [
        arg("rules-file", "rules"),
        arg("allow", "allow"),
        arg("deny", "deny"),
    ];
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    args.push("--trusted-proxy=127.0.0.1");
    let Some(rig) = Rig::start(&args) else {
        return;
    };
    let from = |addr: &str| format!("Forwarded: for={addr};proto=http\r\n");
    assert_eq!(rig.statuses(3, "/", &from("1.1.1.1")), [200, 200, 429]);
    assert_eq!(rig.statuses(3, "/", &from("192.0.2.1")), [200, 200, 200]);
    assert_eq!(rig.get("/", &from("192.0.2.1")).header("RateLimit"), None);
    assert_eq!(rig.get("/", &from("198.51.100.7")).status, 403);
    // A second opinion that differs may be made up: then it is the proxy.
    let both = "X-Forwarded-For: 192.0.2.1\r\n".to_owned() + &from("1.1.1.1");
    assert_eq!(rig.statuses(3, "/", &both), [200, 200, 429]);

    write(
        "rules",
        "- name: slow\n  key: ip\n  rate: 1/h\n  brust: 2\n",
    );
    until("the page names the line", || {
        let page = rig.limit.admin("/").text();
        page.contains("line 4: there is no key &quot;brust&quot;; did you mean burst?")
            .then_some(())
    });
    assert_eq!(rig.get("/", &from("1.1.1.1")).status, 429);
    let reloads = |result: &str| {
        let sample = format!("podkit_limit_reloads_total{{result=\"{result}\"}}");
        rig.limit.metric(&sample)
    };
    assert_eq!(
        (reloads("refused"), reloads("changed")),
        (Some(1.0), Some(0.0))
    );

    write("deny", "198.51.100.8\n");
    write(
        "rules",
        "- {name: post, key: ip, rate: 1/h, method: [POST, PUT]}\n- {name: slow, key: ip, rate: 1/h, burst: 2}\n",
    );
    until("the files are in force", || {
        (rig.get("/", &from("198.51.100.8")).status == 403).then_some(())
    });
    // What was used up under a rule that stayed stays used up.
    assert_eq!(rig.get("/", &from("1.1.1.1")).status, 429);
    assert_eq!(rig.get("/", &from("198.51.100.7")).status, 200);
    assert!(rig.counted("slow", "allowed") >= 5);
    assert_eq!(rig.counted("post", "allowed"), 0);
}

#[test]
fn streams_of_http2_are_limited_too() {
    let Some(rig) = Rig::start(&["--rule", "name=all key=global rate=1/h burst=3"]) else {
        return;
    };
    if !able(&[Need::Program("h2load")]) {
        return;
    }
    let url = format!("http://{}/", rig.front);
    let mut h2load = std::process::Command::new("h2load");
    h2load.args(["-n5", "-c1", "-m5", &url]);
    let finished = run("h2load", &mut h2load);
    let codes = "status codes: 3 2xx, 0 3xx, 2 4xx, 0 5xx";
    assert!(finished.out.contains(codes), "{}", finished.out);
}

#[test]
fn clients_and_the_upstream_may_come_by_tls() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("limit");
    let (cert, key) = authority.server(&["localhost"]).write(dir.path(), "tls");
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let arg = |name: &str, path: &std::path::Path| format!("--{name}={}", path.display());
    let (cert, key, ca) = (
        arg("cert", &cert),
        arg("key", &key),
        arg("upstream-ca", &ca),
    );
    let rule = "--rule=name=all key=global rate=1/h burst=3";
    let Some(back) = Rig::start(&[rule, &cert, &key]) else {
        return;
    };
    let front = free_addr();
    let listen = format!("--listen={front}");
    let upstream = format!("--upstream=https://localhost:{}", back.front.port());
    let args = [
        &listen,
        &upstream,
        &ca,
        &cert,
        &key,
        "--rule=name=few key=ip rate=1/h burst=2",
    ];
    let limit = Module::start("limit", &args, &[]);
    let client = Client::new(&Options {
        authority: Some(&authority),
        ..Options::default()
    });
    let get = || client.get(front, "localhost", "/").unwrap();
    let first = get();
    assert_eq!(
        (first.status, first.text().as_str()),
        (200, "for 127.0.0.1\n")
    );
    // Both say where the client stands, as one list.
    let stands: Vec<&str> = first
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("RateLimit"))
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(stands, ["\"all\";r=2;t=3600", "\"few\";r=1;t=3600"]);
    assert_eq!((get().status, get().status), (200, 429));
    assert!(limit.admin("/").text().contains("Certificates"));
    let refused = podkit_testkit::podkit::podkit(&["limit", &upstream, rule, "--min-version=1.3"]);
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.err.contains("needs a certificate"),
        "{}",
        refused.err
    );
}

#[test]
fn the_page_shows_who_is_limited() {
    if !able(&[Need::Program("chromedriver")]) {
        return;
    }
    let rule = "--rule=name=path key=path rate=1/h burst=2; name=key key=header:X-Key rate=1/h burst=1 path=/key";
    let Some(rig) = Rig::start(&[rule]) else {
        return;
    };
    // A key that is markup is text on the page.
    let markup = "/<img/src=x/onerror=document.title=1>";
    assert_eq!(rig.statuses(4, markup, ""), [200, 200, 429, 429]);
    assert_eq!(rig.get("/key", "X-Key: very-secret-key\r\n").status, 200);
    assert_eq!(rig.get("/key", "X-Key: very-secret-key\r\n").status, 429);
    let json = rig.limit.admin("/limited?format=json");
    assert_eq!(json.header("Content-Type"), Some("application/json"));
    let json = json.json();
    let first = &json["limited"][0];
    assert_eq!(
        (&first["key"], &first["denied"]),
        (&markup.into(), &2.into())
    );
    assert_eq!(json["rules"][0]["limited"], 2);
    let by_accept = http::get_with(rig.limit.admin, "/limited", "Accept: application/json\r\n");
    assert_eq!(by_accept.unwrap().json()["limited"][1]["rule"], "key");
    let browser = Browser::open(1000, 900, false);
    browser.visit(&format!("http://{}/limited", rig.limit.admin));
    let seen = until("two keys are shown", || {
        let seen = browser.script(
            "const rows = [...document.querySelectorAll('#limited tbody tr')];
             return rows.map((row) => [...row.children].map((cell) => cell.textContent).slice(0, 4));",
        );
        (seen.as_array()?.len() == 2).then_some(seen)
    });
    assert_eq!(seen[0], serde_json::json!([markup, "path", "0", "2"]));
    assert!(
        seen[1][0].as_str().unwrap().starts_with("very… (#"),
        "{seen}"
    );
    assert_eq!(
        browser.script("return document.querySelectorAll('img').length;"),
        0
    );
    assert_eq!(browser.console_errors(), Vec::<String>::new());
    assert!(rig.limit.admin("/").text().contains("href=\"/limited\""));
}

#[test]
fn so_many_requests_of_a_key_at_once() {
    let _turn = Turn::shared();
    let (back, front) = (free_addr(), free_addr());
    let listen = format!("--listen={back}");
    let _echo = Module::start("echo", &[&listen, "--delay=4s"], &[]);
    let (listen, upstream) = (format!("--listen={front}"), format!("--upstream={back}"));
    let rule = "--rule=name=slow key=ip concurrency=1";
    let limit = Module::start("limit", &[&listen, &upstream, rule], &[]);
    let first = std::thread::spawn(move || http::get(front, "/").unwrap().status);
    until("the first request is let in", || {
        (counted(&limit, "slow", "allowed") == 1).then_some(())
    });
    let second = http::get(front, "/").unwrap();
    assert_eq!(
        (second.status, second.header("Retry-After")),
        (429, Some("1"))
    );
    assert_eq!(
        (
            second.header("RateLimit-Policy"),
            second.header("RateLimit")
        ),
        (
            Some("\"slow\";q=1;qu=\"concurrent-requests\""),
            Some("\"slow\";r=0")
        )
    );
    assert_eq!(first.join().unwrap(), 200);
    // Just behind the answer's last byte, by another worker than the one that takes the next connection.
    until("it was given back", || {
        (http::get(front, "/").unwrap().status == 200).then_some(())
    });
}

/// examples/rate-limit: a sound pod, and its arguments are what `podkit limit` takes and does.
#[test]
fn the_example_limits_the_login() {
    let file = podkit_testkit::repository().join("examples/rate-limit/pod.yaml");
    let checked = podkit_testkit::podkit::podkit(&["check", &file.display().to_string()]);
    assert_eq!(checked.code, Some(0), "{}{}", checked.out, checked.err);
    let text = std::fs::read_to_string(&file).unwrap();
    let rules = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- "));
    let rules: Vec<&str> = rules.filter(|arg| arg.starts_with("--rule=")).collect();
    assert_eq!(rules.len(), 3);
    let Some(rig) = Rig::start(&rules) else {
        return;
    };
    let login = || {
        http::send(rig.front, "POST", "/login", "text/plain", b"x")
            .unwrap()
            .status
    };
    assert_eq!([login(), login(), login(), login()], [200, 200, 200, 429]);
    assert_eq!(rig.get("/", "").status, 200);
}
