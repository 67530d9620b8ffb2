use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use podkit_foundation::lifecycle::{Lifecycle, Phase};
use podkit_foundation::params::{Addr, Cidr, ParamType};
use podkit_foundation::telemetry::metrics::Registry;
use tokio::task::LocalSet;

use super::*;

fn addr(text: &str) -> Addr {
    Addr::parse(text).unwrap()
}

fn bind(text: &str, workers: usize) -> Result<Listener, String> {
    Listener::bind("listen", &addr(text), workers).map_err(|error| error.to_string())
}

#[test]
fn a_taken_port_is_one_line_whatever_the_number_of_workers() {
    let first = bind("127.0.0.1:0", 2).unwrap();
    let text = format!("127.0.0.1:{}", first.port().unwrap());
    for workers in [1, 2] {
        let line = format!("--listen (PODKIT_LISTEN) {text}: address in use");
        assert_eq!(bind(&text, workers).unwrap_err(), line);
    }
    drop(first);
    bind(&text, 2).unwrap();
}

#[test]
fn a_port_of_all_addresses_answers_on_both_families() {
    let listener = bind(":0", 1).unwrap();
    let port = listener.port().unwrap();
    TcpStream::connect(("127.0.0.1", port)).unwrap();
    if TcpListener::bind("[::1]:0").is_ok() {
        TcpStream::connect(("::1", port)).unwrap();
    }
    let taken = bind(&format!("127.0.0.1:{port}"), 1).unwrap_err();
    assert!(taken.ends_with("address in use"), "{taken}");
}

#[test]
fn names_are_not_listened_on() {
    let line = bind("example.org:80", 1).unwrap_err();
    assert!(line.contains("a listener takes an IP address"), "{line}");
}

#[test]
fn a_unix_socket_takes_over_a_stale_file_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let text = format!("unix:{}", path.display());
    drop(UnixListener::bind(&path).unwrap());
    let listener = bind(&text, 2).unwrap();
    UnixStream::connect(&path).unwrap();
    let line = bind(&text, 1).unwrap_err();
    assert!(line.ends_with("address in use"), "{line}");
    drop(listener);
    assert!(!path.exists(), "the file goes with the listener");

    let (lifecycle, metrics) = (Lifecycle::new(), Registry::default());
    let listener = bind(&text, 2).unwrap();
    let start = move |worker: &Rc<Worker>| {
        let port = listener.take()?;
        let accepting = accept(port, Rc::clone(worker), Rc::new(OneByte::default()));
        drop(tokio::task::spawn_local(accepting));
        Ok(())
    };
    let some = Connections::at_most(1);
    let workers = Workers::start("test", 2, &lifecycle, &metrics, &some, start).unwrap();
    UnixStream::connect(&path).unwrap();
    drop(workers);
    assert!(!path.exists(), "the file goes with the workers");

    std::fs::write(&path, "not a socket").unwrap();
    assert!(bind(&text, 1).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "not a socket");
}

/// Echoes one byte, and panics on a `!`.
#[derive(Default)]
struct OneByte {
    /// Told of each connection that is served.
    begun: Option<mpsc::Sender<()>>,
}

impl OneByte {
    fn telling(begun: &mpsc::Sender<()>) -> Rc<Self> {
        let begun = Some(begun.clone());
        Rc::new(Self { begun })
    }
}

impl Serve for OneByte {
    async fn serve(self: Rc<Self>, mut accepted: Accepted) {
        if let Some(begun) = &self.begun {
            begun.send(()).unwrap();
        }
        let mut buf = Buf::small();
        let io = &mut accepted.socket;
        let read = std::future::poll_fn(|cx| io.poll_read(cx, &mut buf)).await;
        assert_ne!(buf.filled(), b"!", "asked for");
        if read.is_ok() {
            let part = [std::io::IoSlice::new(buf.filled())];
            std::future::poll_fn(|cx| io.poll_write(cx, &part))
                .await
                .unwrap();
        }
    }
}

struct Rig {
    lifecycle: Lifecycle,
    metrics: Registry,
    port: u16,
    workers: Workers,
    begun: mpsc::Receiver<()>,
}

fn rig(workers: usize, max: usize) -> Rig {
    let (lifecycle, metrics) = (Lifecycle::new(), Registry::default());
    let listener = bind("127.0.0.1:0", workers).unwrap();
    let port = listener.port().unwrap();
    let (tell, begun) = mpsc::channel();
    let workers = Workers::start(
        "test",
        workers,
        &lifecycle,
        &metrics,
        &Connections::at_most(max),
        move |worker| {
            let port = listener.take()?;
            let accepting = accept(port, Rc::clone(worker), OneByte::telling(&tell));
            drop(tokio::task::spawn_local(accepting));
            Ok(())
        },
    )
    .unwrap();
    lifecycle.advance(Phase::Ready);
    Rig {
        lifecycle,
        metrics,
        port,
        workers,
        begun,
    }
}

/// Returns when so many connections more are served.
fn wait_for(count: usize, begun: &mpsc::Receiver<()>) {
    for _ in 0..count {
        begun.recv_timeout(Duration::from_secs(5)).unwrap();
    }
}

impl Rig {
    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap()
    }

    fn count(&self, result: &str) -> u64 {
        let labels = [("result", result)];
        self.metrics
            .counter("podkit_connections_total", "", &labels)
            .get()
    }
}

fn echo(mut stream: &TcpStream, byte: u8) -> Option<u8> {
    use std::io::{Read, Write};
    stream.write_all(&[byte]).unwrap();
    let mut answer = [0];
    matches!(stream.read(&mut answer), Ok(1)).then_some(answer[0])
}

#[test]
fn workers_serve_drain_and_end() {
    let rig = rig(2, 10);
    let clients: Vec<_> = (0..6).map(|_| rig.connect()).collect();
    wait_for(6, &rig.begun);
    assert_eq!(rig.count("accepted"), 6);
    rig.lifecycle.advance(Phase::Draining);
    for (byte, client) in (b'a'..).zip(&clients) {
        assert_eq!(echo(client, byte), Some(byte), "in flight is finished");
    }
    rig.workers.join();
    assert_eq!(rig.lifecycle.in_flight(), 0);
    assert!(TcpStream::connect(("127.0.0.1", rig.port)).is_err());
}

#[test]
fn what_is_in_flight_is_cut_when_the_process_stops() {
    let rig = rig(1, 10);
    let _client = rig.connect();
    wait_for(1, &rig.begun);
    rig.lifecycle.advance(Phase::Stopped);
    rig.workers.join();
}

#[test]
fn connections_past_the_bound_are_closed_and_counted() {
    let rig = rig(1, 2);
    let (first, second) = (rig.connect(), rig.connect());
    wait_for(2, &rig.begun);
    assert_eq!(echo(&rig.connect(), b'x'), None);
    assert_eq!(rig.count("refused"), 1);
    assert_eq!(echo(&first, b'1'), Some(b'1'));
    drop(first);
    // Its place is given back behind its last byte; each that comes too early is answered with the end.
    let third = (0..1000).find_map(|_| echo(&rig.connect(), b'3'));
    assert_eq!(third, Some(b'3'));
    assert_eq!(echo(&second, b'2'), Some(b'2'));
    rig.lifecycle.advance(Phase::Draining);
    rig.workers.join();
}

#[test]
fn a_fault_cuts_one_connection_and_is_counted() {
    let rig = rig(1, 10);
    let other = rig.connect();
    assert_eq!(echo(&rig.connect(), b'!'), None);
    assert_eq!(echo(&other, b'o'), Some(b'o'));
    rig.lifecycle.advance(Phase::Draining);
    rig.workers.join();
    let faults = rig
        .metrics
        .counter("podkit_connection_faults_total", "", &[]);
    assert_eq!(faults.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn timers_fire_in_time_and_only_once_armed() {
    LocalSet::new()
        .run_until(async {
            let clock = Clock::default();
            drop(tokio::task::spawn_local(clock.clone().sweep()));
            let begin = tokio::time::Instant::now();
            let expiry = |timer: Timer| async move {
                std::future::poll_fn(|cx| match timer.expired(cx) {
                    true => std::task::Poll::Ready(()),
                    false => std::task::Poll::Pending,
                })
                .await;
                begin.elapsed().as_millis()
            };
            let (long, short, moved) = (clock.timer(), clock.timer(), clock.timer());
            let unarmed = clock.timer();
            long.arm_for(Duration::from_secs(5));
            moved.arm_for(Duration::from_secs(1));
            tokio::task::yield_now().await;
            // Earlier than what the sweep sleeps for.
            short.arm_for(Duration::from_millis(300));
            moved.arm_for(Duration::from_secs(3));
            let (short, moved, long) = tokio::join!(expiry(short), expiry(moved), expiry(long));
            let close = |found: u128, wanted: u128| found >= wanted && found <= wanted + 12;
            assert!(close(short, 300) && close(moved, 3_000) && close(long, 5_000));
            drop(unarmed);
            assert!(clock.is_unused());
        })
        .await;
}

#[test]
fn buffers_grow_move_and_count() {
    let mut buf = Buf::small();
    buf.put(&[b'x'; 17 * 1024]);
    buf.consume(17 * 1024 - 3);
    buf.reserve(100);
    assert_eq!(buf.filled(), b"xxx");
    buf.put(&[b'y'; 140_000]);
    assert_eq!(buf.len(), 140_003);
    buf.clear();
    buf.put_decimal(0);
    buf.put(b" ");
    buf.put_decimal(u64::MAX);
    buf.put(b" ");
    buf.put_hex(0xb_eef0);
    assert_eq!(buf.filled(), b"0 18446744073709551615 beef0");
}

#[test]
fn what_a_listener_was_set_to_is_handed_down() {
    let listener = bind("127.0.0.1:0", 1).unwrap();
    let _client = TcpStream::connect(("127.0.0.1", listener.port().unwrap())).unwrap();
    let mut port = listener.take().unwrap();
    let Some(listen::Door::Tcp(socket)) = port.doors.pop() else {
        panic!("a TCP address");
    };
    socket.set_nonblocking(false).unwrap();
    let (accepted, _) = socket.accept().unwrap();
    assert!(accepted.nodelay().unwrap());
    assert!(rustix::net::sockopt::socket_keepalive(&accepted).unwrap());
}

/// Runs a tunnel between the far ends of two connections in memory.
async fn between<F: Future<Output = ()>>(
    idle: Duration,
    talk: impl FnOnce(memory::End, memory::End) -> F,
) -> std::io::Result<(u64, u64)> {
    let (a, mut near_a) = memory::pair(&[7, 4000], 1000);
    let (b, mut near_b) = memory::pair(&[3, 9000], 1000);
    let worker = Worker::new(
        &Lifecycle::new(),
        &Registry::default(),
        &Connections::at_most(1),
    );
    LocalSet::new()
        .run_until(async {
            drop(tokio::task::spawn_local(Rc::clone(&worker).watch()));
            let mut early = Buf::small();
            early.put(b"early ");
            let tunnel = tunnel(&mut near_a, Some(early), &mut near_b, None, &worker, idle);
            tokio::join!(tunnel, talk(a, b)).0
        })
        .await
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_passes_ends_on_one_way_at_a_time() {
    let moved = between(Duration::from_secs(9), |mut a, mut b| async move {
        let long = vec![b'x'; 100_000];
        let (got, ()) = tokio::join!(b.get_all(), async {
            a.put(&long).await;
            a.end().await;
        });
        assert!(got.starts_with(b"early x") && got.len() == 100_006);
        b.put(b"answer after the end").await;
        b.end().await;
        assert_eq!(a.get_all().await, b"answer after the end");
    })
    .await;
    assert_eq!(moved.unwrap(), (100_006, 20));
}

#[tokio::test(start_paused = true)]
async fn a_silent_tunnel_is_cut_and_looks_so() {
    let begin = tokio::time::Instant::now();
    let cut = between(Duration::from_secs(9), |mut a, mut b| async move {
        tokio::time::advance(Duration::from_secs(5)).await;
        a.put(b"x").await;
        assert_eq!(b.get_all().await, b"early x!");
        assert_eq!(a.get_all().await, b"!");
    })
    .await;
    assert_eq!(cut.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    assert!(begin.elapsed() >= Duration::from_secs(14));
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_passes_a_break_on() {
    let cut = between(Duration::from_secs(9), |mut a, mut b| async move {
        a.abort();
        drop(a);
        assert_eq!(b.get_all().await, b"early !");
    })
    .await;
    assert_eq!(cut.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

/// What the byte that is sent behind `header` is answered with: itself, or nothing when the connection is closed.
fn ask(port: u16, header: &str) -> (TcpStream, Option<u8>) {
    use std::io::{Read as _, Write as _};
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut byte = [0];
    // Refused ones may be reset before it is written.
    stream.write_all(format!("{header}x").as_bytes()).ok();
    let count = stream.read(&mut byte).unwrap_or(0);
    (stream, (count > 0).then_some(byte[0]))
}

/// Echoes a byte and stays until the client goes.
struct Stays;

impl Serve for Stays {
    async fn serve(self: Rc<Self>, mut accepted: Accepted) {
        for _ in 0..2 {
            let mut buf = Buf::small();
            let io = &mut accepted.socket;
            let read = std::future::poll_fn(|cx| io.poll_read(cx, &mut buf)).await;
            if read.is_ok_and(|count| count > 0) {
                let part = [std::io::IoSlice::new(buf.filled())];
                drop(std::future::poll_fn(|cx| io.poll_write(cx, &part)).await);
            }
        }
        drop(accepted.guard);
    }
}

#[test]
fn an_address_has_so_many_connections_and_a_balancer_announces_whose_they_are() {
    let check = |proxies: &[Cidr], headers: &[(&str, bool)]| {
        let (lifecycle, metrics) = (Lifecycle::new(), Registry::default());
        let listener = bind("127.0.0.1:0", 2).unwrap();
        let port = listener.port().unwrap();
        let limits = ListenerLimits {
            max_connections_per_ip: 1,
        };
        let all = Connections::new(100, &limits, proxies);
        let proxies = proxies.to_vec();
        let start = move |worker: &Rc<Worker>| {
            let patience = Duration::from_secs(10);
            accept_from(
                std::slice::from_ref(&listener),
                &proxies,
                patience,
                worker,
                &Rc::new(Stays),
            )
        };
        let workers = Workers::start("test", 2, &lifecycle, &metrics, &all, start).unwrap();
        lifecycle.advance(Phase::Ready);
        let mut held = Vec::new();
        for (header, let_in) in headers {
            let (stream, answer) = ask(port, header);
            assert_eq!(answer.is_some(), *let_in, "{header}");
            held.push(stream);
        }
        let refused = headers.iter().filter(|(_, let_in)| !let_in).count();
        let text = metrics.encode(podkit_foundation::telemetry::metrics::Format::Prometheus);
        let line = format!("podkit_connections_total{{result=\"refused_address\"}} {refused}\n");
        assert!(text.contains(&line), "{text}");
        drop(held);
        // They are given back.
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while ask(port, headers[0].0).1.is_none() {
            assert!(std::time::Instant::now() < deadline);
        }
        drop(workers);
    };
    check(&[], &[("", true), ("", false), ("", false)]);
    let balancer = Cidr::parse("127.0.0.0/8").unwrap();
    let line = |from: &str| format!("PROXY TCP4 {from} 192.0.2.1 1 2\r\n");
    let (a, b) = (line("198.51.100.1"), line("198.51.100.2"));
    let six = |host: &str| format!("PROXY TCP6 2001:db8::{host} 2001:db8::1 1 2\r\n");
    check(
        &[balancer],
        &[
            (&a, true),
            (&b, true),
            (&a, false),
            (&six("7"), true),
            (&six("8"), false),
            ("PROXY UNKNOWN\r\n", true),
            ("PROXY UNKNOWN\r\n", true),
        ],
    );
}

#[test]
fn connections_of_a_part_are_cut_when_its_time_is_over_and_others_go_on() {
    let (lifecycle, metrics) = (Lifecycle::new(), Registry::default());
    let part = lifecycle.part();
    let listeners = [(); 2].map(|()| bind("127.0.0.1:0", 1).unwrap());
    let [stays, goes] = [0, 1].map(|at| listeners[at].port().unwrap());
    let ends = part.clone();
    let (tell, begun) = mpsc::channel();
    let start = move |worker: &Rc<Worker>| {
        let of_part = worker.part(&ends);
        drop(tokio::task::spawn_local(Rc::clone(&of_part).watch()));
        for (listener, worker) in listeners.iter().zip([worker, &of_part]) {
            let serve = OneByte::telling(&tell);
            let accepting = accept(listener.take()?, Rc::clone(worker), serve);
            drop(tokio::task::spawn_local(accepting));
        }
        Ok(())
    };
    let some = Connections::at_most(9);
    let workers = Workers::start("test", 1, &lifecycle, &metrics, &some, start).unwrap();
    let open = |port| TcpStream::connect(("127.0.0.1", port)).unwrap();
    let echoed = |stream: &mut TcpStream| {
        stream.write_all(b"x").unwrap();
        let mut back = [0];
        stream.read_exact(&mut back).is_ok()
    };
    // Places are used again.
    assert!(echoed(&mut open(goes)) && echoed(&mut open(goes)));
    let (mut kept, mut cut, mut also) = (open(stays), open(goes), open(goes));
    wait_for(5, &begun);
    part.advance(Phase::Draining);
    // Nobody new gets in: then it drains.
    while TcpStream::connect(("127.0.0.1", goes)).is_ok() {}
    for stream in [&mut cut, &mut also] {
        stream.set_nonblocking(true).unwrap();
        let kind = stream.read(&mut [0]).unwrap_err().kind();
        assert_eq!(
            kind,
            std::io::ErrorKind::WouldBlock,
            "it may end what it has"
        );
        stream.set_nonblocking(false).unwrap();
    }
    part.advance(Phase::Stopped);
    for stream in [&mut cut, &mut also] {
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }
    assert!(echoed(&mut kept));
    drop(workers);
}
