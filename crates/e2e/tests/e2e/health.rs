//! `podkit health` with real servers behind it, and with who asks in front: kubelets, gRPC clients, HAProxy.

mod names;
mod secure;
mod sql;

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use bytes::Bytes;
use podkit_testkit::http::{self, Response};
use podkit_testkit::memcached::Memcached;
use podkit_testkit::net::free_addr;
use podkit_testkit::peers::haproxy;
use podkit_testkit::podkit::{Module, podkit};
use podkit_testkit::redis::{Redis, Reply};
use podkit_testkit::{DEADLINE, Need, Turn, able, until};
use rustix::process::Signal;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Streaming};

use crate::raw::Raw;

/// A module that asks these probes each tenth of a second.
struct Ground {
    module: Module,
    listen: SocketAddr,
    socket: std::path::PathBuf,
    _dir: tempfile::TempDir,
    _turn: Turn,
}

impl Ground {
    fn start(args: &[String]) -> Self {
        let turn = Turn::shared();
        let (listen, dir) = (free_addr(), tempfile::tempdir().unwrap());
        let socket = dir.path().join("admin");
        let mut all = vec![
            format!("--listen={listen}"),
            format!("--admin-socket={}", socket.display()),
            "--period=100ms".to_owned(),
            "--timeout=1s".to_owned(),
            "--failure-threshold=2".to_owned(),
        ];
        all.extend_from_slice(args);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        Self {
            module: Module::start("health", &all, &[]),
            listen,
            socket,
            _dir: dir,
            _turn: turn,
        }
    }

    fn get(&self, path: &str) -> Response {
        http::get(self.listen, path).unwrap()
    }

    /// Waits until this is answered so.
    fn wait(&self, path: &str, status: u16) -> Response {
        until(&format!("{path} is {status}"), || {
            let answer = self.get(path);
            (answer.status == status).then_some(answer)
        })
    }

    fn post(&self, path: &str) -> u16 {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        http::exchange(&mut stream, request.as_bytes())
            .unwrap()
            .status
    }

    /// `podkit health --exec`: its exit code, and all that it says.
    fn exec(&self) -> (i32, String) {
        let listen = format!("--listen={}", self.listen);
        let done = podkit(&["health", "--exec", &listen]);
        (done.code.unwrap_or(-1), format!("{}{}", done.out, done.err))
    }
}

/// How often a server was asked this.
fn calls(redis: &Redis, command: &str) -> u64 {
    let Reply::Bulk(info) = redis.client().ask(&["INFO", "commandstats"]) else {
        panic!("no bulk");
    };
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

#[test]
fn verdicts_are_of_real_work() {
    if !able(&[Need::Program("redis-server"), Need::Program("memcached")]) {
        return;
    }
    let (redis, memcached, web) = (Redis::start(&[]), Memcached::start(), free_addr());
    let _web = Module::start("echo", &[&format!("--listen={web}")], &[]);
    let ground = Ground::start(&[
        format!(
            "--probe=cache=redis://{};role=master;canary=probe;for=ready,startup",
            redis.addr
        ),
        format!(
            "--probe=sessions=memcached://{};canary=probe",
            memcached.addr
        ),
        format!("--probe=web=http://{web}/x;status=200;body=GET;for=live,ready"),
        format!("--probe=port=tcp://{web}"),
        "--probe=name=dns://localhost;address=127.0.0.1".to_owned(),
        "--probe=room=disk:///;free=1".to_owned(),
        "--probe=script=exec:/bin/echo fine;output=^fine".to_owned(),
    ]);
    let ready = ground.wait("/readyz", 200);
    assert_eq!(ready.text(), "ok");
    let age: u64 = ready.header("Age").unwrap().parse().unwrap();
    assert!(age < 5, "{age}");
    let shown = ground.get("/readyz?verbose").text();
    for name in ["cache", "sessions", "web", "port", "name", "room", "script"] {
        assert!(shown.contains(&format!("[+]{name} ok")), "{shown}");
    }
    assert!(shown.ends_with("readyz check passed\n"), "{shown}");
    assert_eq!(ground.wait("/startupz", 200).text(), "ok");
    assert_eq!(ground.get("/livez?verbose").text().lines().count(), 2);
    assert_eq!(ground.exec().0, 0);

    // However many ask, the server is asked once a period.
    let (before, since) = (calls(&redis, "info"), Instant::now());
    for _ in 0..300 {
        assert_eq!(ground.get("/readyz").status, 200);
    }
    let periods = u64::try_from(since.elapsed().as_millis() / 100).unwrap();
    let asked = calls(&redis, "info") - before;
    assert!(asked <= periods + 4, "{asked} in {periods} periods");

    // A server that hangs is found out, and where; who lives is said to live.
    redis.server.process.signal(Signal::STOP);
    let failed = ground.wait("/readyz", 503).text();
    assert!(
        failed.contains("[-]cache failed: no answer within 1000 ms (in query)\n"),
        "{failed}"
    );
    assert!(failed.contains("[+]web ok\n"), "{failed}");
    assert_eq!(ground.get("/livez").status, 200);
    assert_eq!(ground.get("/startupz").status, 200, "it has started");
    assert_eq!(ground.get("/readyz/web").status, 200);
    assert_eq!(ground.get("/readyz/cache").status, 503);
    assert_eq!(ground.get("/readyz/none").status, 404);
    let tree = ground.get("/readyz?format=json").json();
    assert_eq!(tree["state"], "unhealthy");
    let why = ground.module.admin("/why?probe=cache&format=json").json();
    let last = &why["probes"][0]["results"][0];
    assert_eq!(last["success"], false);
    assert!(
        last["phases_ms"]["query"].as_f64().unwrap() >= 900.0,
        "{last}"
    );
    let (code, said) = ground.exec();
    assert_eq!(code, 1);
    assert!(said.contains("answers 503: [-]cache failed"), "{said}");
    assert_eq!(
        ground.module.metric("probe_success{probe=\"cache\"}"),
        Some(0.0)
    );
    assert_eq!(
        ground.module.admin("/readyz").status,
        200,
        "podkit itself is well"
    );
    redis.server.process.signal(Signal::CONT);
    ground.wait("/readyz", 200);
    let own = ground.get("/metrics").text();
    for sample in [
        "probe_success{probe=\"cache\"} 1",
        "podkit_health_state{probe=\"cache\",state=\"healthy\"} 1",
        "podkit_health_passes{endpoint=\"readyz\"} 1",
    ] {
        assert!(own.contains(sample), "{own}");
    }
    assert!(
        !own.contains("process_"),
        "podkit's own are on the admin address"
    );

    // Drained by hand.
    assert_eq!(ground.post("/app/drain"), 200);
    assert!(
        ground
            .get("/readyz")
            .text()
            .contains("[-]drain failed: drained by hand")
    );
    assert_eq!(ground.get("/livez").status, 200);
    assert_eq!(
        http::get(ground.module.admin, "/app/undrain")
            .unwrap()
            .status,
        404
    );
    assert_eq!(ground.post("/app/undrain"), 200);
    assert_eq!(ground.get("/readyz").status, 200);
}

#[test]
fn a_file_of_probes_is_read_again() {
    let (web, dir) = (free_addr(), tempfile::tempdir().unwrap());
    let _web = Module::start("echo", &[&format!("--listen={web}")], &[]);
    let file = dir.path().join("probes.yaml");
    let say = |second: &str| {
        let text = format!("probes:\n  web:\n    url: http://{web}\n  other:\n    {second}\n");
        std::fs::write(&file, text).unwrap();
    };
    say("url: tcp://127.0.0.1:1");
    let ground = Ground::start(&[format!("--probes-file={}", file.display())]);
    let failed = until("both were tried", || {
        let text = ground.get("/readyz").text();
        (text.contains("[+]web") && text.contains("nobody listens there")).then_some(text)
    });
    assert!(
        failed.contains("[-]other failed: nobody listens there\n"),
        "{failed}"
    );
    let reloads = |result: &str| {
        let sample = format!("podkit_reloads_total{{result=\"{result}\"}}");
        ground.module.metric(&sample).unwrap_or_default()
    };
    say("urll: tcp://127.0.0.1:1");
    ground.module.process.signal(Signal::HUP);
    until("the bad file is refused", || {
        (reloads("failure") == 1.0).then_some(())
    });
    assert!(
        ground.get("/readyz").text().contains("[-]other"),
        "the old state stays"
    );
    say(&format!("url: tcp://{web}"));
    ground.module.process.signal(Signal::HUP);
    ground.wait("/readyz", 200);
    assert_eq!(reloads("success"), 1.0);
}

/// A `HealthCheckRequest`.
fn question(service: &str) -> Request<Bytes> {
    let mut message = vec![0x0a, u8::try_from(service.len()).unwrap()];
    message.extend_from_slice(service.as_bytes());
    Request::new(message.into())
}

/// `HealthCheckResponse`s.
const SERVING: &[u8] = &[8, 1];
const NOT_SERVING: &[u8] = &[8, 2];
const SERVICE_UNKNOWN: &[u8] = &[8, 3];

struct Asker(tonic::client::Grpc<Channel>);

impl Asker {
    async fn check(&mut self, service: &str) -> Result<Bytes, Code> {
        self.0.ready().await.unwrap();
        let path = http_path("/grpc.health.v1.Health/Check");
        let answer = self.0.unary(question(service), path, Raw).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| status.code())
    }

    async fn watch(&mut self, service: &str) -> Streaming<Bytes> {
        self.0.ready().await.unwrap();
        let path = http_path("/grpc.health.v1.Health/Watch");
        let answer = self.0.server_streaming(question(service), path, Raw).await;
        answer.unwrap().into_inner()
    }
}

fn http_path(path: &'static str) -> ::http::uri::PathAndQuery {
    ::http::uri::PathAndQuery::from_static(path)
}

#[test]
fn verdicts_are_there_for_grpc_and_its_own_probe_reads_them() {
    let (web, grpc) = (free_addr(), free_addr());
    let application = Module::start("echo", &[&format!("--listen={web}")], &[]);
    let ground = Ground::start(&[
        format!("--probe=web=http://{web}"),
        format!("--grpc-listen={grpc}"),
    ]);
    // Another one asks this one: the client and the server of the same service.
    let second = Ground::start(&[format!("--probe=first=grpc://{grpc};service=web")]);
    second.wait("/readyz", 200);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let talk = async {
        let endpoint = Endpoint::new(format!("http://{grpc}")).unwrap();
        let mut client = Asker(tonic::client::Grpc::new(endpoint.connect_lazy()));
        for service in ["", "web", "readyz", "livez"] {
            assert_eq!(client.check(service).await.unwrap(), SERVING, "{service}");
        }
        assert_eq!(client.check("none").await, Err(Code::NotFound));
        let mut whole = client.watch("").await;
        let mut none = client.watch("none").await;
        assert_eq!(whole.message().await.unwrap().unwrap(), SERVING);
        assert_eq!(none.message().await.unwrap().unwrap(), SERVICE_UNKNOWN);
        assert_eq!(ground.post("/app/drain"), 200);
        assert_eq!(whole.message().await.unwrap().unwrap(), NOT_SERVING);
        assert_eq!(client.check("web").await.unwrap(), SERVING, "it is well");
        assert_eq!(ground.post("/app/undrain"), 200);
        assert_eq!(whole.message().await.unwrap().unwrap(), SERVING);
        drop(application);
        assert_eq!(whole.message().await.unwrap().unwrap(), NOT_SERVING);
        // Who stops says that it does not serve, and ends what is watched.
        ground.module.process.signal(Signal::TERM);
        assert_eq!(whole.message().await.unwrap_err().code(), Code::Unavailable);
        assert_eq!(none.message().await.unwrap_err().code(), Code::Unavailable);
    };
    let runtime = runtime.unwrap();
    runtime.block_on(async {
        let talk = tokio::time::timeout(DEADLINE, talk);
        talk.await.expect("it is done in time");
    });
    let failed = second.wait("/readyz", 503).text();
    assert!(failed.contains("[-]first failed: "), "{failed}");
    let mut ground = ground;
    assert_eq!(ground.module.process.wait().code(), Some(0));
}

#[test]
fn haproxy_takes_servers_out_and_in() {
    if !able(&[Need::Program("haproxy")]) {
        return;
    }
    let (web, agent, front, stats) = (free_addr(), free_addr(), free_addr(), free_addr());
    let application = Module::start("echo", &[&format!("--listen={web}")], &[]);
    let ground = Ground::start(&[
        format!("--probe=web=http://{web}"),
        format!("--agent-listen={agent}"),
    ]);
    let config = format!(
        "frontend f\n  bind {front}\n  default_backend b\n\
         frontend s\n  bind {stats}\n  stats enable\n  stats uri /stats\n\
         backend b\n  server s {web} weight 100 agent-check agent-addr {} agent-port {} agent-inter 50ms\n",
        agent.ip(),
        agent.port()
    );
    let _haproxy = haproxy(&config, None, stats, None);
    let row = || {
        let text = http::get(stats, "/stats;csv").ok()?.text();
        let row = text.lines().find(|line| line.starts_with("b,s,"))?;
        // Status and weight.
        let cells: Vec<&str> = row.split(',').collect();
        Some((cells[17].to_owned(), cells[18].to_owned()))
    };
    let wait = |status: &str, weight: &str| {
        until(&format!("{status} {weight}"), || {
            let (has, weighs) = row()?;
            (has.starts_with(status) && weighs == weight).then_some(())
        });
    };
    // What its own checks say: there are none.
    wait("no check", "100");
    assert_eq!(ground.post("/app/drain"), 200);
    wait("DRAIN (agent)", "100");
    assert_eq!(http::get(front, "/").unwrap().status, 503);
    assert_eq!(ground.post("/app/undrain"), 200);
    wait("no check", "100");
    assert_eq!(http::get(front, "/").unwrap().status, 200);
    drop(application);
    wait("DOWN (agent)", "100");
}
