use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::probe::*;

/// Dials the machine's loopback in the place of a pod.
pub(super) struct Loopback;

impl Dial for Loopback {
    fn address(&self) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    async fn dial(&self, target: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(target).await
    }
}

/// A pod that takes every packet and answers none.
pub(super) struct Silent;

impl Dial for Silent {
    fn address(&self) -> IpAddr {
        IpAddr::from([10, 87, 0, 2])
    }

    async fn dial(&self, _target: SocketAddr) -> io::Result<TcpStream> {
        std::future::pending().await
    }
}

/// Ends every command in the same way.
pub(super) struct Ends(io::Result<ExecOutcome>);

impl Exec for Ends {
    async fn exec(&self, _argv: &[String], _time: Option<Duration>) -> io::Result<ExecOutcome> {
        match &self.0 {
            Ok(outcome) => Ok(outcome.clone()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }
}

pub(super) fn no_exec() -> Ends {
    Ends(Err(io::Error::other("not to be called")))
}

pub(super) const SECOND: Duration = Duration::from_secs(1);
/// For what does not wait until it is over.
pub(super) const LONG: Duration = Duration::from_secs(30);

fn get(port: u16, path: &str) -> Action {
    Action::Http {
        tls: false,
        host: None,
        port,
        path: path.into(),
        headers: Vec::new(),
    }
}

/// A server that gives each connection the next of `answers` once it has read a request's head, closes it, and returns
/// the heads. `{port}` in an answer is its own.
async fn server(answers: Vec<String>) -> (u16, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let mut heads = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            heads.push(read_request(&mut stream).await);
            let answer = answer.replace("{port}", &port.to_string());
            // The prober may have heard enough.
            let _enough = stream.write_all(answer.as_bytes()).await;
        }
        heads
    });
    (port, task)
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

async fn look(answers: &[&str]) -> (Outcome, u16) {
    let (port, _task) = server(answers.iter().map(|a| a.to_string()).collect()).await;
    (
        attempt(&get(port, "/"), LONG, &Loopback, &no_exec()).await,
        port,
    )
}

#[tokio::test]
async fn http_statuses() {
    for (answer, expected) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            Outcome::Success,
        ),
        ("HTTP/1.0 204 No Content\r\n\r\n", Outcome::Success),
        ("HTTP/1.1 200 OK\r\n\r\nuntil the end", Outcome::Success),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            Outcome::Success,
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            Outcome::Success,
        ),
        (
            "HTTP/1.1 404 Not Found\r\n\r\n",
            Outcome::Failure("HTTP probe failed with statuscode: 404".into()),
        ),
        (
            "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
            Outcome::Failure("HTTP probe failed with statuscode: 500".into()),
        ),
        (
            "HTTP/1.1 304 Not Modified\r\n\r\n",
            Outcome::Warning("Probe terminated redirects, Response body: ".into()),
        ),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\nContent-Length: 4\r\n\r\ngone",
            Outcome::Warning("Probe terminated redirects, Response body: gone".into()),
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
            Outcome::Unknown("unexpected EOF".into()),
        ),
    ] {
        // What can't be judged is tried three times.
        let (outcome, _) = look(&[answer; 3]).await;
        assert_eq!(outcome, expected, "{answer:?}");
    }
    // A body of any size: the first 10 KiB are enough.
    let endless = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n{}",
        "x".repeat(20_000)
    );
    assert_eq!(look(&[&endless]).await.0, Outcome::Success);
}

#[tokio::test]
async fn what_is_no_http_is_told() {
    for (answer, text) in [
        ("", "EOF"),
        ("HTTP/1.1 200 OK\r\nX: ", "unexpected EOF"),
        (
            "\u{15}\u{3}\u{1}\r\n",
            "net/http: HTTP/1.x transport connection broken: malformed HTTP response \"\\x15\\x03\\x01\"",
        ),
        (
            "SSH-2.0-OpenSSH_9.6\r\n",
            "net/http: HTTP/1.x transport connection broken: malformed HTTP response \"SSH-2.0-OpenSSH_9.6\"",
        ),
    ] {
        let (outcome, port) = look(&[answer]).await;
        let expected = format!("Get \"http://127.0.0.1:{port}/\": {text}");
        assert_eq!(outcome, Outcome::Failure(expected));
    }
    let huge = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(100_000));
    let (outcome, _) = look(&[&huge]).await;
    assert!(
        matches!(&outcome, Outcome::Failure(text) if text.contains("headers exceeded")),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn requests_are_the_kubelet_s() {
    let head = |headers: Vec<(&'static str, &'static str)>| async move {
        let (port, task) = server(vec!["HTTP/1.1 200 OK\r\n\r\n".into()]).await;
        let headers = headers
            .into_iter()
            .map(|(n, v)| (n.to_string(), v.to_string()));
        let action = Action::Http {
            tls: false,
            host: None,
            port,
            path: "healthz?full=1 2".into(),
            headers: headers.collect(),
        };
        assert_eq!(
            attempt(&action, LONG, &Loopback, &no_exec()).await,
            Outcome::Success
        );
        task.await.unwrap()[0].replace(&port.to_string(), "PORT")
    };
    assert_eq!(
        head(vec![]).await,
        "GET /healthz?full=1%202 HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nUser-Agent: kube-probe/1.37\r\n\
         Accept: */*\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(
        head(vec![
            ("host", "app.example"),
            ("X-A", "1"),
            ("X-A", "2"),
            ("User-Agent", ""),
            ("Accept", "text/plain")
        ])
        .await,
        "GET /healthz?full=1%202 HTTP/1.1\r\nHost: app.example\r\nX-A: 1\r\nX-A: 2\r\n\
         Accept: text/plain\r\nConnection: close\r\n\r\n"
    );
    for (name, value) in [("X-A", "1\r\nX-B: 2"), ("X A", "1"), ("", "1")] {
        let action = Action::Http {
            tls: false,
            host: None,
            port: 1,
            path: "/".into(),
            headers: vec![(name.into(), value.into())],
        };
        let outcome = attempt(&action, SECOND, &Loopback, &no_exec()).await;
        assert!(
            matches!(&outcome, Outcome::Failure(text) if text.contains("invalid header field")),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn redirects_to_the_same_host_are_followed() {
    let to = |location: &str| format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\n\r\n");
    let ok = "HTTP/1.1 200 OK\r\n\r\n".to_string();
    let answers = vec![
        to("/a/b?c"),
        to("d"),
        to("http://127.0.0.1:{port}/e"),
        to("//127.0.0.1:{port}"),
        ok,
    ];
    let (port, task) = server(answers).await;
    let outcome = attempt(&get(port, "/"), LONG, &Loopback, &no_exec()).await;
    assert_eq!(outcome, Outcome::Success);
    let paths: Vec<String> = task
        .await
        .unwrap()
        .iter()
        .map(|head| head.split(' ').nth(1).unwrap().to_string())
        .collect();
    assert_eq!(paths, ["/", "/a/b?c", "/a/d", "/e", "/"]);
    // In a circle, until it has been enough.
    let circle = vec![to("/again"); 10];
    let (port, task) = server(circle).await;
    let outcome = attempt(&get(port, "/"), LONG, &Loopback, &no_exec()).await;
    let text = format!("Get \"http://127.0.0.1:{port}/again\": stopped after 10 redirects");
    assert_eq!(outcome, Outcome::Failure(text));
    assert_eq!(task.await.unwrap().len(), 10);
}

#[tokio::test]
async fn what_nothing_serves_is_clear() {
    // Bound and dropped: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let tcp = Action::Tcp { host: None, port };
    assert_eq!(
        attempt(&tcp, LONG, &Loopback, &no_exec()).await,
        Outcome::Failure(format!(
            "dial tcp 127.0.0.1:{port}: connect: connection refused"
        ))
    );
    assert_eq!(
        attempt(&get(port, "/x"), LONG, &Loopback, &no_exec()).await,
        Outcome::Failure(format!(
            "Get \"http://127.0.0.1:{port}/x\": dial tcp 127.0.0.1:{port}: connect: connection refused"
        ))
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tcp = Action::Tcp {
        host: Some("localhost".into()),
        port,
    };
    assert_eq!(
        attempt(&tcp, LONG, &Loopback, &no_exec()).await,
        Outcome::Success
    );
    // A label is 63 bytes at most: no resolver is asked.
    let host = "x".repeat(64);
    let named = Action::Tcp {
        host: Some(host.clone()),
        port,
    };
    let outcome = attempt(&named, LONG, &Loopback, &no_exec()).await;
    let start = format!("dial tcp: lookup {host}: ");
    assert!(
        matches!(&outcome, Outcome::Failure(text) if text.starts_with(&start)),
        "{outcome:?}"
    );
}

/// Knows the names that it is given.
struct Names(Vec<(&'static str, Vec<IpAddr>)>);

impl Dial for Names {
    fn address(&self) -> IpAddr {
        Loopback.address()
    }

    async fn dial(&self, target: SocketAddr) -> io::Result<TcpStream> {
        Loopback.dial(target).await
    }

    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        match self.0.iter().find(|(known, _)| *known == name) {
            Some((_, ips)) if ips.is_empty() => std::future::pending().await,
            Some((_, ips)) => Ok(ips.clone()),
            None => Err("no such host".to_owned()),
        }
    }
}

fn named(host: &str, port: u16) -> (Action, Action) {
    let (host, path, headers) = (Some(host.to_owned()), "/x".to_owned(), Vec::new());
    let tcp = Action::Tcp {
        host: host.clone(),
        port,
    };
    let http = Action::Http {
        tls: false,
        host,
        port,
        path,
        headers,
    };
    (tcp, http)
}

#[tokio::test]
async fn a_host_name_is_looked_up_and_each_address_tried() {
    // Of the second address only: the first refuses.
    let (first, second) = ([127, 9, 8, 7].into(), Ipv4Addr::LOCALHOST.into());
    let names = Names(vec![
        ("db.example", vec![first, second]),
        ("off.example", vec![first, [127, 9, 8, 6].into()]),
    ]);
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned();
    let (port, served) = server(vec![ok.clone(), ok]).await;
    let (_, http) = named("db.example", port);
    let attempt = async |action: &Action| attempt(action, LONG, &names, &no_exec()).await;
    assert_eq!(attempt(&http).await, Outcome::Success);
    assert_eq!(hook(&http, Some(LONG), &names, &no_exec()).await, Ok(()));
    let heads = served.await.unwrap();
    let host = format!("\r\nHost: db.example:{port}\r\n");
    assert!(heads.iter().all(|head| head.contains(&host)), "{heads:?}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (tcp, _) = named("db.example", listener.local_addr().unwrap().port());
    assert_eq!(attempt(&tcp).await, Outcome::Success);
    let (tcp, http) = named("off.example", port);
    let refused = format!("dial tcp 127.9.8.7:{port}: connect: connection refused");
    assert_eq!(attempt(&tcp).await, Outcome::Failure(refused.clone()));
    assert_eq!(
        attempt(&http).await,
        Outcome::Failure(format!("Get \"http://off.example:{port}/x\": {refused}"))
    );
    let (tcp, http) = named("gone.example", port);
    let unknown = "dial tcp: lookup gone.example: no such host".to_owned();
    assert_eq!(attempt(&tcp).await, Outcome::Failure(unknown.clone()));
    assert_eq!(
        hook(&http, Some(LONG), &names, &no_exec()).await,
        Err(format!("Get \"http://gone.example:{port}/x\": {unknown}"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_lookup_is_within_the_time_of_the_probe() {
    let names = Names(vec![("slow.example", Vec::new())]);
    let (tcp, http) = named("slow.example", 80);
    assert_eq!(
        attempt(&tcp, SECOND, &names, &no_exec()).await,
        Outcome::Failure("dial tcp: lookup slow.example: i/o timeout".into())
    );
    assert_eq!(
        attempt(&http, SECOND, &names, &no_exec()).await,
        Outcome::Failure(
            "Get \"http://slow.example:80/x\": dial tcp: lookup slow.example: i/o timeout (Client.Timeout exceeded while awaiting headers)"
                .into()
        )
    );
}

#[tokio::test(start_paused = true)]
async fn silence_is_a_timeout_in_go_s_words() {
    let tcp = Action::Tcp {
        host: None,
        port: 80,
    };
    assert_eq!(
        attempt(&tcp, SECOND, &Silent, &no_exec()).await,
        Outcome::Failure("dial tcp 10.87.0.2:80: i/o timeout".into())
    );
    assert_eq!(
        attempt(&get(80, "/"), SECOND, &Silent, &no_exec()).await,
        Outcome::Failure(
            "Get \"http://10.87.0.2:80/\": dial tcp 10.87.0.2:80: i/o timeout (Client.Timeout exceeded while awaiting headers)"
                .into()
        )
    );
    assert_eq!(
        hook(&get(80, "/"), Some(SECOND), &Silent, &no_exec()).await,
        Err("context deadline exceeded".into())
    );
}

/// Makes [`LONG`] pass, once the sockets have been looked at so often that all that was sent has been seen.
pub(super) async fn long_passes() {
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::pause();
    tokio::time::advance(LONG).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_server_that_stalls_is_a_timeout_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let action = get(port, "/");
    let attempt = async || attempt(&action, LONG, &Loopback, &no_exec()).await;
    let (outcome, ()) = tokio::join!(attempt(), long_passes());
    let text = format!(
        "Get \"http://127.0.0.1:{port}/\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    );
    assert_eq!(outcome, Outcome::Failure(text));
    drop(listener.accept().await.unwrap());
    // After a good head it is not the container's failure: thrown away, as the kubelet does.
    let stalling = tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc";
            stream.write_all(head).await.unwrap();
            held.push(stream);
            long_passes().await;
        }
    });
    let outcome = attempt().await;
    assert!(
        matches!(&outcome, Outcome::Unknown(text) if text.contains("while reading body")),
        "{outcome:?}"
    );
    stalling.abort();
}

/// A server's side, with a certificate that nobody has signed.
pub(super) fn self_signed() -> rustls::ServerConfig {
    let made = rcgen::generate_simple_self_signed(vec!["other.example".into()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap()
}

/// Serves one TLS connection after the other.
async fn tls_server() -> u16 {
    let config = Arc::new(self_signed());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        while let Ok((mut tcp, _)) = listener.accept() {
            let mut session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::Stream::new(&mut session, &mut tcp);
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            let status = if head.starts_with(b"GET /bad ") {
                503
            } else {
                200
            };
            let body = "y".repeat(30_000);
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 30000\r\n\r\n{body}");
            let _enough = stream.write_all(answer.as_bytes());
        }
    });
    port
}

#[tokio::test]
async fn https_takes_any_certificate() {
    let port = tls_server().await;
    let https = |port, path: &str| Action::Http {
        tls: true,
        host: None,
        port,
        path: path.into(),
        headers: Vec::new(),
    };
    let time = LONG;
    assert_eq!(
        attempt(&https(port, "/"), time, &Loopback, &no_exec()).await,
        Outcome::Success
    );
    assert_eq!(
        attempt(&https(port, "/bad"), time, &Loopback, &no_exec()).await,
        Outcome::Failure("HTTP probe failed with statuscode: 503".into())
    );
    assert_eq!(
        hook(&https(port, "/bad"), Some(time), &Loopback, &no_exec()).await,
        Ok(())
    );
    // Plain HTTP where TLS is expected: told for a probe, tried in plain for a hook.
    let answer = "HTTP/1.1 400 Bad Request\r\n\r\n";
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        use std::io::{Read, Write};
        for _ in 0..3 {
            let (mut tcp, _) = listener.accept().unwrap();
            let mut some = [0; 4096];
            let read = tcp.read(&mut some).unwrap();
            tcp.write_all(answer.as_bytes()).unwrap();
            // Until the client has seen it: closing with bytes unread would be a reset. A client that is quicker is gone.
            let _gone = tcp.shutdown(std::net::Shutdown::Write);
            let _rest = tcp.read_to_end(&mut Vec::new());
            assert!(read > 0);
        }
    });
    let outcome = attempt(&https(port, "/"), time, &Loopback, &no_exec()).await;
    let text = format!(
        "Get \"https://127.0.0.1:{port}/\": http: server gave HTTP response to HTTPS client"
    );
    assert_eq!(outcome, Outcome::Failure(text));
    assert_eq!(
        hook(&https(port, "/"), Some(time), &Loopback, &no_exec()).await,
        Ok(())
    );
    server.join().unwrap();
    // A plain probe of a TLS port gets the alert.
    let port = tls_server().await;
    let outcome = attempt(&get(port, "/"), time, &Loopback, &no_exec()).await;
    assert!(matches!(&outcome, Outcome::Failure(_)), "{outcome:?}");
}

#[tokio::test]
async fn commands_are_judged_by_their_end() {
    let action = Action::Exec(vec!["sh".into(), "-c".into(), "check".into()]);
    let ended = |end, output: &str| {
        Ends(Ok(ExecOutcome {
            end,
            output: output.as_bytes().to_vec(),
        }))
    };
    let look = async |ends: Ends| attempt(&action, SECOND * 2, &Loopback, &ends).await;
    assert_eq!(
        look(ended(ExecEnd::Exit(0), "fine")).await,
        Outcome::Success
    );
    assert_eq!(
        look(ended(ExecEnd::Exit(1), "cat: /tmp/x: No such file\n")).await,
        Outcome::Failure("cat: /tmp/x: No such file".into())
    );
    assert_eq!(
        look(ended(ExecEnd::TimedOut, "")).await,
        Outcome::Failure("command timed out: \"sh -c check\" timed out after 2s".into())
    );
    let outcome = look(ended(ExecEnd::Exit(1), &"x".repeat(20_000))).await;
    assert_eq!(outcome, Outcome::Failure("x".repeat(OUTPUT_BYTES_MAX)));
    assert_eq!(
        look(Ends(Err(io::Error::other("no such program: sh")))).await,
        Outcome::Unknown("no such program: sh".into())
    );
    let run = async |ends: Ends| hook(&action, None, &Loopback, &ends).await;
    assert_eq!(run(ended(ExecEnd::Exit(0), "")).await, Ok(()));
    assert_eq!(
        run(ended(ExecEnd::Exit(3), "boo")).await,
        Err("command 'sh -c check' exited with 3: boo".into())
    );
}

#[tokio::test(start_paused = true)]
async fn a_sleep_hook_takes_its_time_and_no_more_than_is_left() {
    let start = tokio::time::Instant::now();
    let action = Action::Sleep(SECOND * 5);
    assert_eq!(hook(&action, None, &Silent, &no_exec()).await, Ok(()));
    assert_eq!(start.elapsed(), SECOND * 5);
    assert!(
        hook(&action, Some(SECOND), &Silent, &no_exec())
            .await
            .is_err()
    );
    assert_eq!(start.elapsed(), SECOND * 6);
}
