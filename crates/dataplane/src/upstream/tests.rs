use std::future::poll_fn;
use std::time::Duration;

use podkit_foundation::params::{Addr, ParamSet, ParamType, Upstream, Values};
use podkit_foundation::telemetry::metrics::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::*;
use crate::net::Transport as _;

fn limits(given: &[(&str, &str)]) -> UpstreamLimits {
    let find = |name: &str| {
        let found = given.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let values = Values::gather(UpstreamLimits::PARAMS.iter(), &|_| vec![], &find);
    UpstreamLimits::from_values(&values).unwrap()
}

fn pool(addr: &str, given: &[(&str, &str)]) -> std::rc::Rc<Pool> {
    let target = Target::of(Addr::parse(addr).unwrap());
    Pool::new(
        target,
        limits(given),
        UpstreamMetrics::new(&Registry::default()),
        Outward::default(),
    )
}

fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(LocalSet::new().run_until(future))
}

#[test]
fn forms_that_are_not_there_yet_are_named() {
    let check = |text: &str, what: &str| {
        let upstream = Upstream::parse(text).unwrap();
        let line = Target::new("upstream", "tls", &upstream).unwrap_err();
        assert_eq!(line.exit_code(), 2);
        let line = line.to_string();
        assert!(line.starts_with("--upstream (PODKIT_UPSTREAM): "), "{line}");
        assert!(
            line.contains(&format!("{what} is not supported by tls yet")),
            "{line}"
        );
    };
    check("dns:a:1", "dns:");
    check("srv:_a._tcp.b", "srv:");
    check("file:/a", "file:");
    check("k8s:a/b:1", "k8s:");
    let target =
        |text: &str| Target::new("upstream", "tls", &Upstream::parse(text).unwrap()).unwrap();
    assert_eq!(target("app:80").host(), "app:80");
    assert_eq!(target("[::1]:80").host(), "[::1]:80");
    assert_eq!(target(":80").host(), "localhost:80");
    assert_eq!(target("unix:/run/a").host(), "localhost");
}

#[test]
fn a_certificate_is_verified_for_the_name_that_is_given_else_the_host() {
    let target = |text: &str| Target::new("upstream", "tls", &Upstream::parse(text).unwrap());
    let check = |text: &str, name: &str| {
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
        assert_eq!(*target(text).unwrap().speech(), Speech::Tls(name), "{text}");
    };
    check("https://a.example:1", "a.example");
    check("https://a.example:1;server-name=b.example", "b.example");
    check("https://[::1]:1", "::1");
    check("https://:1", "localhost");
    check("https://unix:/run/a;server-name=b", "b");
    assert_eq!(*target("h2c://a:1").unwrap().speech(), Speech::H2c);
    let refused = |text: &str, why: &str| {
        let line = target(text).unwrap_err().to_string();
        assert!(line.contains(why), "{text}: {line}");
    };
    refused("https://unix:/run/a", "needs ;server-name=NAME");
    refused("a:1;server-name=b", "is for https://");
    refused("h2c://a:1;server-name=b", "is for https://");
}

#[test]
fn connections_are_kept_last_used_first_and_bounded() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let pool = pool(
            &format!("unix:{}", path.display()),
            &[("PODKIT_UPSTREAM_IDLE", "2")],
        );
        let (mut near, mut far) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            near.push(pool.connect().await.unwrap());
            far.push(listener.accept().await.unwrap().0);
        }
        drop(far.remove(1));
        poll_fn(|cx| near[1].poll_readable(cx)).await.unwrap();
        // The third finds no room. What the upstream has closed or written to is not used again.
        near.into_iter()
            .for_each(|socket| pool.keep(socket, Instant::now()));
        assert!(pool.take().is_some());
        assert!(pool.take().is_none());

        let mut socket = pool.connect().await.unwrap();
        let mut other = listener.accept().await.unwrap().0;
        other.write_all(b"unasked").await.unwrap();
        poll_fn(|cx| socket.poll_readable(cx)).await.unwrap();
        pool.keep(socket, Instant::now());
        assert!(pool.take().is_none());
    });
}

#[test]
fn kept_connections_are_closed_when_they_are_old() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let pool = pool(&addr, &[("PODKIT_UPSTREAM_IDLE_TIMEOUT", "50ms")]);
        let socket = pool.connect().await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        pool.keep(socket, Instant::now());
        let mut none = [0; 8];
        let ended = tokio::time::timeout(Duration::from_secs(5), far.read(&mut none)).await;
        assert_eq!(ended.unwrap().unwrap(), 0);
        assert!(pool.take().is_none());
    });
}

#[test]
fn what_can_not_be_dialled_says_why() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // Names come from /etc/hosts.
        assert!(
            pool(&format!("localhost:{port}"), &[])
                .connect()
                .await
                .is_ok()
        );
        assert!(pool(&format!(":{port}"), &[]).connect().await.is_ok());
        drop(listener);
        let refused = pool(&format!("127.0.0.1:{port}"), &[]).connect().await;
        assert!(matches!(refused, Err(ConnectError::Refused)), "{refused:?}");
        let refused = pool("unix:/nonexistent/socket", &[]).connect().await;
        assert!(matches!(refused, Err(ConnectError::Refused)), "{refused:?}");
        let quick = [("PODKIT_CONNECT_TIMEOUT", "200ms")];
        let unknown = pool("nowhere.invalid:80", &quick)
            .connect()
            .await
            .unwrap_err();
        assert!(
            matches!(unknown, ConnectError::Name(_) | ConnectError::Timeout),
            "{unknown:?}"
        );
        assert_eq!(ConnectError::Refused.status(), 503);
        assert_eq!(ConnectError::Timeout.status(), 504);
        assert_eq!(unknown.status() / 100, 5);
    });
}

#[test]
fn a_unix_listener_whose_queue_is_full_is_waited_for() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let narrow = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        bind(&narrow, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&narrow, 0).unwrap();
        let addr = format!("unix:{}", path.display());
        let pool = pool(&addr, &[("PODKIT_CONNECT_TIMEOUT", "50ms")]);
        let _first = pool.connect().await.unwrap();
        let full = pool.connect().await.unwrap_err();
        assert!(matches!(full, ConnectError::Timeout), "{full:?}");
    });
}
