//! Clients that take their time, or send more than anybody needs: each is told so or cut in time, and costs next to nothing until then.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use podkit_testkit::net::free_addr;
use podkit_testkit::podkit::Module;
use podkit_testkit::{DEADLINE, Turn, http, until};

/// What podkit may grow by, whatever clients do here.
const ROOM: f64 = 8.0 * 1024.0 * 1024.0;

/// More than anybody can hold.
const LARGE: u64 = 1 << 30;

/// What can wait in the kernel's buffers between an application and a client, for each connection; above it, somebody else holds it.
const KERNEL_BYTES: u64 = 16 << 20;

/// An application that reads a head and answers without end, as fast as it is read.
#[derive(Default)]
struct Spring {
    /// Answers that were begun, bytes of them that were taken, and answers that were cut.
    begun: AtomicU64,
    written: AtomicU64,
    cut: AtomicU64,
    /// Connections that ended before a request was whole.
    broken: AtomicU64,
}

impl Spring {
    /// Answers with so many bytes.
    fn start(length: u64) -> (SocketAddr, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (addr, spring) = (listener.local_addr().unwrap(), Arc::new(Self::default()));
        let own = Arc::clone(&spring);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = Arc::clone(&own);
                std::thread::spawn(move || own.serve(stream, length));
            }
        });
        (addr, spring)
    }

    fn serve(&self, mut stream: TcpStream, length: u64) {
        while let Some(()) = self.request(&mut stream) {
            self.begun.fetch_add(1, Ordering::Relaxed);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            let mut left = length;
            let mut sent = stream.write_all(head.as_bytes());
            while sent.is_ok() && left > 0 {
                let count = left.min(64 * 1024);
                sent = stream.write_all(&[b'x'; 64 * 1024][..count as usize]);
                left -= count;
                self.written.fetch_add(count, Ordering::Relaxed);
            }
            if sent.is_err() {
                self.cut.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Reads a request, with a body that is what its Content-Length says or chunks.
    fn request(&self, stream: &mut TcpStream) -> Option<()> {
        let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            if is_whole(&got) {
                return Some(());
            }
            match stream.read(&mut buffer) {
                Ok(count @ 1..) => got.extend_from_slice(&buffer[..count]),
                _ if got.is_empty() => return None,
                _ => {
                    self.broken.fetch_add(1, Ordering::Relaxed);
                    return None;
                }
            }
        }
    }

    fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }
}

fn is_whole(got: &[u8]) -> bool {
    let Some(end) = got.windows(4).position(|four| four == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&got[..end]).to_lowercase();
    if head.contains("transfer-encoding") {
        return got[end + 2..].ends_with(b"\r\n0\r\n\r\n");
    }
    let mut lines = head.lines();
    let length = lines.find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |digits| digits.parse().unwrap());
    got.len() >= end + 4 + length
}

/// A balance in front of an application that answers with so many bytes.
fn start(length: u64, flags: &[&str]) -> (Module, SocketAddr, Arc<Spring>) {
    let (upstream, spring) = Spring::start(length);
    let listen = free_addr();
    let (at, to) = (
        format!("--listen={listen}"),
        format!("--upstream={upstream}"),
    );
    let mut args = vec![at.as_str(), &to, "--ready=off", "--workers=1"];
    args.extend(flags);
    let balance = Module::start("balance", &args, &[]);
    (balance, listen, spring)
}

fn memory(balance: &Module) -> f64 {
    balance.metric("process_resident_memory_bytes").unwrap()
}

/// All that comes until the other side closes; how often a head is in it, and the first status.
fn answers(stream: &mut TcpStream) -> (usize, String) {
    let mut bytes = Vec::new();
    // It may be reset behind the answer.
    drop(stream.read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.get(9..12).unwrap_or_default().to_owned();
    (text.matches("HTTP/1.1 ").count(), status)
}

/// Sends `piece` again and again until `stream` has an answer or is closed; gives up at the deadline.
fn drip(stream: &mut TcpStream, piece: &[u8], pause: Duration) {
    let began = Instant::now();
    stream.set_nonblocking(true).unwrap();
    while stream.peek(&mut [0]).is_err() && began.elapsed() < DEADLINE {
        if stream.write(piece).is_err() {
            break;
        }
        std::thread::sleep(pause);
    }
    stream.set_nonblocking(false).unwrap();
}

#[test]
fn heads_that_never_end_are_cut_in_time() {
    let _turn = Turn::shared();
    let (balance, listen, spring) = start(2, &["--head-timeout=3s"]);
    let before = memory(&balance);
    // A crowd that says nothing more, and one that keeps sending.
    let head = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}", "x".repeat(20_000));
    let began = Instant::now();
    let begin = |_| {
        let mut stream = http::dial(listen).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let mut crowd: Vec<TcpStream> = (0..200).map(begin).collect();
    let mut slow = http::dial(listen).unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nX: ").unwrap();
    assert_eq!(
        http::get(listen, "/").unwrap().status,
        200,
        "others are served"
    );
    drip(&mut slow, b"x", Duration::from_millis(20));
    assert_eq!(answers(&mut slow), (1, "408".to_owned()));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(2900), "{took:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    let most = memory(&balance) - before;
    for stream in &mut crowd {
        assert_eq!(answers(stream), (1, "408".to_owned()));
    }
    // 20,000 bytes each may be held, in a buffer of twice the size.
    assert!(most < ROOM + 200.0 * 64.0 * 1024.0, "{most} bytes");
    assert_eq!(spring.begun(), 1, "nothing of them was forwarded");
}

#[test]
fn bodies_that_come_too_slowly_are_cut() {
    let _turn = Turn::shared();
    let flags = ["--body-timeout=1s", "--min-body-rate=10Ki"];
    let (balance, listen, spring) = start(2, &flags);
    let long = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nbegin";
    let chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n";
    // (what, request, what follows again and again)
    let cases: &[(&str, &str, &[u8])] = &[
        ("a pause", long, b""),
        ("a pause between chunks", chunked, b""),
        ("a drip", long, b"0123456789"),
        ("a drip of chunks", chunked, b"5\r\ndrips\r\n"),
    ];
    for (what, head, piece) in cases {
        let broken = spring.broken.load(Ordering::Relaxed);
        let began = Instant::now();
        let mut stream = http::dial(listen).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        if !piece.is_empty() {
            drip(&mut stream, piece, Duration::from_millis(20));
        }
        assert_eq!(answers(&mut stream), (1, "408".to_owned()), "{what}");
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(900), "{what}: {took:?}");
        assert!(took < Duration::from_secs(10), "{what}: {took:?}");
        until("the upstream is told that no more comes", || {
            (spring.broken.load(Ordering::Relaxed) > broken).then_some(())
        });
    }
    assert_eq!(spring.begun(), 0, "the application saw none of them whole");
    let faults = balance.metric("podkit_http_errors_total{fault=\"client\"}");
    assert_eq!(faults, Some(cases.len() as f64));
}

#[test]
fn a_steady_body_is_taken_however_long_it_is() {
    let _turn = Turn::shared();
    let (_balance, listen, _spring) = start(2, &["--body-timeout=2s", "--min-body-rate=1Ki"]);
    // Longer than the timeout, but it keeps the rate.
    let mut steady = http::dial(listen).unwrap();
    steady
        .write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n")
        .unwrap();
    for _ in 0..100 {
        steady.write_all(&[b'x'; 1000]).unwrap();
        std::thread::sleep(Duration::from_millis(30));
    }
    assert_eq!(http::receive(&mut steady).unwrap().status, 200);
}

/// Clients that ask for more than anybody can hold and take nothing of it.
fn stalled(addr: SocketAddr, count: u64) -> Vec<TcpStream> {
    let ask = |_| {
        let mut stream = http::dial(addr).unwrap();
        stream
            .write_all(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
            .unwrap();
        stream
    };
    (0..count).map(ask).collect()
}

/// Waits until all answers were cut at the application, and looks at what podkit held meanwhile.
fn all_cut(balance: &Module, spring: &Spring, count: u64, before: f64) {
    let mut most = 0.0_f64;
    until("all of them are cut", || {
        most = most.max(memory(balance) - before);
        (spring.cut.load(Ordering::Relaxed) == count).then_some(())
    });
    assert!(most < ROOM, "{most} bytes more");
    let written = spring.written.load(Ordering::Relaxed);
    assert!(written < count * KERNEL_BYTES, "{written} bytes were taken");
}

#[test]
fn readers_that_stop_hold_the_upstream_back_and_are_cut() {
    const CLIENTS: u64 = 16;
    let _turn = Turn::shared();
    let (balance, listen, spring) = start(LARGE, &["--idle-timeout=2s"]);
    let before = memory(&balance);
    let began = Instant::now();
    let clients = stalled(listen, CLIENTS);
    all_cut(&balance, &spring, CLIENTS, before);
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1900), "{took:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    for mut stream in clients {
        let mut got = 0;
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            got += count as u64;
        }
        assert!(got < KERNEL_BYTES, "a begin and no more: {got}");
    }
    let faults = balance.metric("podkit_http_errors_total{fault=\"client\"}");
    assert_eq!(faults, Some(CLIENTS as f64));
    assert_eq!(balance.admin("/livez").status, 200);
}

#[test]
fn a_reader_that_is_slow_and_steady_gets_all() {
    let _turn = Turn::shared();
    let (_balance, listen, _spring) = start(16 << 20, &["--idle-timeout=2s"]);
    let mut stream = stalled(listen, 1).remove(0);
    let (mut got, mut buffer) = (0, vec![0; 256 * 1024]);
    while got < 16 << 20 {
        std::thread::sleep(Duration::from_millis(60));
        match stream.read(&mut buffer).unwrap() {
            0 => panic!("cut after {got} bytes"),
            count => got += count,
        }
    }
}

#[test]
fn streams_of_http_2_that_stop_are_reset_and_others_of_the_connection_go_on() {
    const STREAMS: u64 = 16;
    let _turn = Turn::shared();
    let (balance, listen, spring) = start(LARGE, &["--idle-timeout=2s"]);
    let before = memory(&balance);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(listen).await.unwrap();
        let (send, connection) = h2::client::Builder::new()
            .initial_connection_window_size(8 << 20)
            .handshake::<_, Bytes>(stream)
            .await
            .unwrap();
        drop(tokio::spawn(async move { drop(connection.await) }));
        let ask = async |path: &str| {
            let mut send = send.clone().ready().await.unwrap();
            let uri = format!("http://h{path}");
            let request = ::http::Request::get(uri).body(()).unwrap();
            let (answer, _) = send.send_request(request, true).unwrap();
            answer.await.unwrap().into_body()
        };
        let mut bodies = Vec::new();
        for _ in 0..STREAMS {
            bodies.push(ask("/large").await);
        }
        let (balance, own) = (&balance, Arc::clone(&spring));
        let watch = async {
            let mut most = 0.0_f64;
            while own.cut.load(Ordering::Relaxed) < STREAMS {
                most = most.max(memory(balance) - before);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            most
        };
        let most = tokio::time::timeout(DEADLINE, watch).await.unwrap();
        assert!(most < ROOM, "{most} bytes more");
        for mut body in bodies {
            let mut got = 0;
            let error = loop {
                match body.data().await.unwrap() {
                    Ok(data) => got += data.len(),
                    Err(error) => break error,
                }
            };
            assert!(error.is_reset() && error.is_remote(), "{error}");
            assert!(got <= 64 * 1024, "no more than its window: {got}");
        }
        let mut body = ask("/large").await;
        assert!(!body.data().await.unwrap().unwrap().is_empty());
    });
    let written = spring.written.load(Ordering::Relaxed);
    assert!(
        written < (STREAMS + 1) * KERNEL_BYTES,
        "{written} bytes were taken"
    );
}

#[test]
fn fields_without_measure_are_refused() {
    let _turn = Turn::shared();
    let (balance, listen, spring) = start(2, &[]);
    let before = memory(&balance);
    let get = "GET / HTTP/1.1\r\nHost: h\r\n";
    let post = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let fields = |count: usize, length: usize| -> String {
        let field = |at| format!("x-{at}: {}\r\n", "x".repeat(length));
        (0..count).map(field).collect()
    };
    let endless = "x".repeat(10 << 20);
    let cases = [
        ("101 fields", 431, format!("{get}{}\r\n", fields(100, 1))),
        (
            "a large field",
            431,
            format!("{get}{}\r\n", fields(1, 33 << 10)),
        ),
        (
            "large together",
            431,
            format!("{get}{}\r\n", fields(99, 400)),
        ),
        ("a field without end", 431, format!("{get}x: {endless}")),
        ("a name without end", 431, format!("{get}{endless}")),
        (
            "fields without end",
            431,
            format!("{get}{}", fields(100_000, 100)),
        ),
        ("a target without end", 414, format!("GET /{endless}")),
        (
            "a large target",
            414,
            format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(33 << 10)),
        ),
        (
            "a size without end",
            400,
            format!("{post}{}", "0".repeat(10 << 20)),
        ),
        (
            "an extension without end",
            400,
            format!("{post}5;{endless}"),
        ),
        (
            "a trailer without end",
            431,
            format!("{post}0\r\nx: {endless}"),
        ),
        (
            "101 trailers",
            431,
            format!("{post}0\r\n{}\r\n", fields(101, 1)),
        ),
        ("empty lines without end", 400, "\r\n".repeat(5 << 20)),
    ];
    for (what, status, bytes) in &cases {
        let mut stream = http::dial(listen).unwrap();
        let mut writer = stream.try_clone().unwrap();
        let (answers, took) = std::thread::scope(|scope| {
            // Until it is closed.
            scope.spawn(move || drop(writer.write_all(bytes.as_bytes())));
            let began = Instant::now();
            (answers(&mut stream), began.elapsed())
        });
        assert_eq!(answers, (1, status.to_string()), "{what}");
        assert!(took < Duration::from_secs(9), "{what}: {took:?}");
    }
    assert_eq!(spring.begun(), 0, "the application saw none of them whole");
    let more = memory(&balance) - before;
    assert!(more < ROOM, "{more} bytes more");
    // And what is just within the bounds is served.
    let within = format!("{get}{}\r\n", fields(99, 300));
    let mut stream = http::dial(listen).unwrap();
    assert_eq!(
        http::exchange(&mut stream, within.as_bytes())
            .unwrap()
            .status,
        200
    );
}
