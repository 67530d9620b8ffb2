mod dns;
mod egress;
mod netlink;
mod pasta;
mod world;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::forward::{self, Limits, Route};
use super::holder::inode_of;
use super::nft::Nft;
use super::publish::wanted;
use super::*;
use crate::plan::{ContainerPlan, ImageSource, PodPlan, PortPlan, Protocol};

const POD: Ipv4Addr = Ipv4Addr::new(10, 87, 3, 4);

fn container(name: &str, ports: Vec<PortPlan>) -> ContainerPlan {
    ContainerPlan {
        ports,
        ..ContainerPlan::new(name, ImageSource::Host)
    }
}

fn pod(containers: Vec<ContainerPlan>) -> PodPlan {
    PodPlan {
        labels: Default::default(),
        annotations: Default::default(),
        hostname: "p".into(),
        ..PodPlan::new("p", containers)
    }
}

fn port(number: u16) -> PortPlan {
    PortPlan {
        name: None,
        port: number,
        host_port: None,
        host_ip: None,
        protocol: Protocol::Tcp,
    }
}

/// What would be listened on, as `address>port` with `+` where the pod's loopback comes first.
fn shown(containers: Vec<ContainerPlan>, loopback: bool) -> (Vec<String>, Vec<String>) {
    let (wanted, warnings) = wanted(&pod(containers), loopback);
    let line = |w: &super::publish::Wanted| {
        let first = if w.route.loopback { "+" } else { "" };
        format!("{}>{}{first}", w.published.local, w.route.port)
    };
    (wanted.iter().map(line).collect(), warnings)
}

#[test]
fn what_is_listened_on() {
    let host = |host_port, port: PortPlan| PortPlan {
        host_port: Some(host_port),
        ..port
    };
    // A containerPort, on both loopbacks, once however often it is declared.
    let twice = vec![
        container("a", vec![port(80)]),
        container("b", vec![port(80)]),
    ];
    assert_eq!(
        shown(twice.clone(), true).0,
        ["127.0.0.1:80>80+", "[::1]:80>80+"]
    );
    assert_eq!(shown(twice, false).0, Vec::<String>::new());
    // A hostPort is on all addresses and never leads to the pod's loopback.
    let other = vec![container("a", vec![host(8080, port(80))])];
    assert_eq!(
        shown(other.clone(), true).0,
        ["[::]:8080>80", "127.0.0.1:80>80+", "[::1]:80>80+"]
    );
    assert_eq!(shown(other, false).0, ["[::]:8080>80"]);
    // One number for both: one listener, which the reached address decides about.
    let both = vec![container("a", vec![host(80, port(80))])];
    assert_eq!(shown(both, true).0, ["[::]:80>80+"]);
    // A hostIP of its own leaves the loopback to the containerPort.
    let ip = PortPlan {
        host_ip: Some(IpAddr::from([192, 0, 2, 1])),
        ..host(80, port(80))
    };
    assert_eq!(
        shown(vec![container("a", vec![ip])], true).0,
        ["192.0.2.1:80>80+", "127.0.0.1:80>80+", "[::1]:80>80+"]
    );
    // Someone's hostPort takes the number of another's containerPort: said, not an error.
    let clash = vec![
        container("a", vec![host(8080, port(80))]),
        container("b", vec![port(8080)]),
    ];
    let (lines, warnings) = shown(clash, true);
    assert_eq!(lines, ["[::]:8080>80", "127.0.0.1:80>80+", "[::1]:80>80+"]);
    assert_eq!(
        warnings,
        [
            "port 8080 of container b is not published on 127.0.0.1:8080: that is hostPort 8080 of container a"
        ]
    );
    // UDP and TCP of one number don't meet.
    let udp = PortPlan {
        protocol: Protocol::Udp,
        ..port(53)
    };
    assert_eq!(
        shown(vec![container("a", vec![port(53), udp])], true)
            .0
            .len(),
        4
    );
}

#[test]
fn where_connections_go() {
    let route = |loopback| Route { port: 80, loopback };
    let inside = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
    let inside6 = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 80));
    let own = SocketAddr::from((POD, 80));
    let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
    for (loopback, reached, expected) in [
        (
            true,
            IpAddr::from([127, 0, 0, 1]),
            vec![inside, inside6, own],
        ),
        (
            true,
            IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
            vec![inside, inside6, own],
        ),
        (true, mapped, vec![inside, inside6, own]),
        (true, IpAddr::from([192, 0, 2, 1]), vec![own]),
        (false, IpAddr::from([127, 0, 0, 1]), vec![own]),
    ] {
        assert_eq!(
            route(loopback).targets(reached, POD),
            expected,
            "{loopback} {reached}"
        );
    }
}

#[test]
fn who_holds_a_port_is_read_from_proc() {
    let listening = "  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0";
    let any6 = "  1: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 77 1 0";
    let connected = listening.replace(" 0A ", " 01 ");
    let at = |ip: [u8; 4], port| SocketAddr::from((ip, port));
    for (line, wanted, expected) in [
        (listening, at([127, 0, 0, 1], 8080), Some(4242)),
        (listening, at([0, 0, 0, 0], 8080), Some(4242)),
        (listening, at([127, 0, 0, 1], 8081), None),
        (listening, at([192, 0, 2, 1], 8080), None),
        (any6, at([127, 0, 0, 1], 8080), Some(77)),
        (&connected, at([127, 0, 0, 1], 8080), None),
        ("garbage", at([127, 0, 0, 1], 8080), None),
        ("0: 0100007F 1 2", at([127, 0, 0, 1], 8080), None),
    ] {
        assert_eq!(
            inode_of(line, Protocol::Tcp, wanted),
            expected,
            "{line} {wanted}"
        );
    }
}

#[test]
fn addresses_are_the_pod_s_own_while_they_are_held() {
    let dir = tempfile::tempdir().unwrap();
    let first = AddressLease::take(dir.path(), "default", "web").unwrap();
    assert_eq!(first.address().octets()[..2], [10, 87]);
    // The same pod twice can't be, but two whose names lead to one address can.
    let second = AddressLease::take(dir.path(), "default", "web").unwrap();
    assert_ne!(first.address(), second.address());
    let was = first.address();
    drop(first);
    let again = AddressLease::take(dir.path(), "default", "web").unwrap();
    assert_eq!(again.address(), was);
    drop((second, again));
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "a lock file is left"
    );
}

#[test]
fn an_address_whose_supervisor_was_killed_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let was = AddressLease::take(dir.path(), "default", "web")
        .unwrap()
        .address();
    // It left its file, but its lock went with it.
    std::fs::write(dir.path().join(was.to_string()), "").unwrap();
    let lease = AddressLease::take(dir.path(), "default", "web").unwrap();
    assert_eq!(lease.address(), was);
}

/// A new network namespace, or none when not root.
fn namespace() -> Option<OwnedFd> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root to make a network namespace");
        return None;
    }
    let made = std::thread::spawn(|| {
        // The thread ends at once; nothing of the process changes but it.
        #[expect(
            deprecated,
            reason = "the replacement is unsafe for FILES, which is not asked for"
        )]
        rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
        std::fs::File::open("/proc/thread-self/ns/net").unwrap()
    });
    Some(made.join().unwrap().into())
}

fn pod_net() -> Option<(OwnedFd, Arc<PodNet>)> {
    let namespace = namespace()?;
    let net = PodNet::enter(namespace.try_clone().unwrap(), POD).unwrap();
    net.stay_inside().unwrap();
    Some((namespace, Arc::new(net)))
}

/// Runs in the namespace, on a thread of its own.
fn inside<T: Send + 'static>(
    namespace: &OwnedFd,
    run: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let namespace = namespace.try_clone().unwrap();
    std::thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        run()
    })
}

/// Listens in the pod.
fn listen(namespace: &OwnedFd, address: impl Into<SocketAddr>) -> std::net::TcpListener {
    let address = address.into();
    inside(namespace, move || {
        std::net::TcpListener::bind(address).unwrap()
    })
    .join()
    .unwrap()
}

/// Answers each connection with what came, in upper case, after its end; half-closed connections thus included.
fn upper(listener: std::net::TcpListener) {
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut all = Vec::new();
                if stream.read_to_end(&mut all).is_ok() {
                    all.make_ascii_uppercase();
                    let _closed = stream.write_all(&all);
                }
            });
        }
    });
}

fn limits(each: usize) -> Limits {
    Limits {
        each,
        ..Limits::of_process()
    }
}

async fn front(net: &Arc<PodNet>, route: Route, max: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local = listener.local_addr().unwrap();
    tokio::spawn(forward::serve(
        listener,
        route,
        Arc::clone(net),
        limits(max),
    ));
    local
}

async fn talk(to: SocketAddr, text: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to).await?;
    stream.write_all(text).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

/// [`talk`] as soon as there is room for one more.
async fn talk_soon(to: SocketAddr, text: &[u8]) -> Vec<u8> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        match talk(to, text).await {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_pod_has_its_address_and_its_sockets_live_inside() {
    let Some((namespace, net)) = pod_net() else {
        return;
    };
    assert_eq!(net.address(), POD);
    // Once more is no error: the address is there already.
    let again = PodNet::enter(namespace.try_clone().unwrap(), POD).unwrap();
    again.stay_inside().unwrap();
    let listener = listen(&namespace, (POD, 0));
    let at = listener.local_addr().unwrap();
    upper(listener);
    let mut stream = net.connect(at).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), at);
    assert_eq!(stream.local_addr().unwrap().ip(), IpAddr::from(POD));
    stream.write_all(b"x").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'X');
    // The machine itself has no such address.
    assert!(std::net::TcpListener::bind((POD, 0)).is_err());
    let refused = net.connect((POD, 1).into()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    // As container runtimes have it.
    let start = inside(&namespace, || {
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap()
    });
    assert_eq!(start.join().unwrap().trim(), "0");
}

#[tokio::test]
async fn a_port_is_dialled_wherever_the_pod_listens() {
    let Some((namespace, net)) = pod_net() else {
        return;
    };
    let lo6 = std::net::Ipv6Addr::LOCALHOST;
    for address in [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::from(lo6),
        IpAddr::from(POD),
    ] {
        let listener = listen(&namespace, (address, 0));
        let port = listener.local_addr().unwrap().port();
        upper(listener);
        let mut inside = net.dial(port).await.unwrap();
        assert_eq!(inside.peer_addr().unwrap().ip(), address);
        inside.write_all(b"x").await.unwrap();
        inside.shutdown().await.unwrap();
        assert_eq!(inside.read_u8().await.unwrap(), b'X');
    }
    let refused = net.dial(1).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn what_is_no_namespace_is_refused() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let error = PodNet::enter(file.into(), POD).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("entering the pod's network namespace: "),
        "{error}"
    );
}

#[tokio::test]
async fn published_ports_prefer_the_loopback_and_fall_back() {
    let Some((namespace, net)) = pod_net() else {
        return;
    };
    let loopback = listen(&namespace, ([127, 0, 0, 1], 8080));
    upper(loopback.try_clone().unwrap());
    let own = listen(&namespace, (POD, 8081));
    upper(own);
    let published = |port| Route {
        port,
        loopback: true,
    };
    let hosted = |port| Route {
        port,
        loopback: false,
    };
    let to = front(&net, published(8080), 10).await;
    assert_eq!(talk(to, b"abc").await.unwrap(), b"ABC");
    let to = front(&net, published(8081), 10).await;
    assert_eq!(talk(to, b"abc").await.unwrap(), b"ABC");
    // A hostPort does not reach what listens on loopback only; refused is told as a reset, not as an empty answer.
    let to = front(&net, hosted(8080), 10).await;
    let error = talk(to, b"abc").await.unwrap_err();
    assert!(
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        ),
        "{error}"
    );
}

#[tokio::test]
async fn bulk_passes_whole_and_a_slow_reader_holds_the_sender() {
    let Some((namespace, net)) = pod_net() else {
        return;
    };
    upper(listen(&namespace, (POD, 80)));
    let to = front(
        &net,
        Route {
            port: 80,
            loopback: false,
        },
        10,
    )
    .await;
    let sent: Vec<u8> = (0..8 << 20).map(|n: u32| b'a' + (n % 23) as u8).collect();
    let expected = sent.to_ascii_uppercase();
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    // Nothing is read for a while: the forwarder must wait with it, and lose nothing.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(
        answer == expected,
        "{} of {} bytes, or other ones",
        answer.len(),
        expected.len()
    );
}

#[tokio::test]
async fn a_connection_that_is_cut_does_not_look_finished() {
    let Some((namespace, net)) = pod_net() else {
        return;
    };
    let listener = listen(&namespace, (POD, 80));
    let to = front(
        &net,
        Route {
            port: 80,
            loopback: false,
        },
        10,
    )
    .await;
    let cut = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"half").unwrap();
        std::thread::sleep(Duration::from_millis(50));
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    });
    let mut stream = TcpStream::connect(to).await.unwrap();
    let mut answer = Vec::new();
    let error = stream.read_to_end(&mut answer).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(answer, b"half");
    cut.join().unwrap();
}

#[tokio::test]
async fn connections_are_bounded_and_none_leaks() {
    let Some((namespace, net)) = pod_net() else {
        return;
    };
    upper(listen(&namespace, (POD, 80)));
    let to = front(
        &net,
        Route {
            port: 80,
            loopback: false,
        },
        2,
    )
    .await;
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(b"a").await.unwrap();
        held.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(
        talk(to, b"abc").await.is_err(),
        "a third connection is served"
    );
    for mut stream in held {
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'A');
    }
    assert_eq!(talk_soon(to, b"abc").await, b"ABC");
    // Other tests open descriptors at the same time: many rounds make a leak stand out.
    let before = descriptors();
    for _ in 0..300 {
        assert_eq!(talk(to, b"x").await.unwrap(), b"X");
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let after = descriptors();
    assert!(after < before + 150, "{before} descriptors became {after}");
}

#[tokio::test]
async fn all_ports_together_leave_descriptors_to_the_supervisor() {
    let Some((namespace, net)) = pod_net() else {
        return;
    };
    upper(listen(&namespace, (POD, 80)));
    let route = Route {
        port: 80,
        loopback: false,
    };
    // Room for one connection, whichever port it comes by.
    let limits = Limits {
        each: 10,
        descriptors: Arc::new(tokio::sync::Semaphore::new(3)),
    };
    let room = Arc::clone(&limits.descriptors);
    let mut fronts = Vec::new();
    for _ in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        fronts.push(listener.local_addr().unwrap());
        let serve = forward::serve(listener, route, Arc::clone(&net), limits.clone());
        tokio::spawn(serve);
    }
    let mut first = TcpStream::connect(fronts[0]).await.unwrap();
    first.write_all(b"a").await.unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while room.available_permits() == 3 {
        assert!(Instant::now() < end, "the first is not taken");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(talk(fronts[1], b"abc").await.is_err());
    first.shutdown().await.unwrap();
    assert_eq!(first.read_u8().await.unwrap(), b'A');
    assert_eq!(talk_soon(fronts[1], b"abc").await, b"ABC");
}

#[tokio::test]
async fn datagrams_find_the_way_in_and_back() {
    let Some((namespace, net)) = pod_net() else {
        return;
    };
    for (bound, loopback) in [(Ipv4Addr::LOCALHOST, true), (POD, true), (POD, false)] {
        let echo = inside(&namespace, move || {
            std::net::UdpSocket::bind((bound, 5353)).unwrap()
        });
        let echo = echo.join().unwrap();
        echo.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let server = std::thread::spawn(move || {
            let mut buffer = [0; 100];
            for _ in 0..4 {
                let (length, from) = echo.recv_from(&mut buffer).unwrap();
                buffer[..length].make_ascii_uppercase();
                echo.send_to(&buffer[..length], from).unwrap();
            }
        });
        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = front.local_addr().unwrap();
        let route = Route {
            port: 5353,
            loopback,
        };
        let task = tokio::spawn(udp::serve(
            front,
            route,
            Arc::clone(&net),
            limits(10),
            udp::FLOW_IDLE,
        ));
        for client in 0..2 {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            for text in ["one", "two"] {
                let text = format!("{text}{client}");
                socket.send_to(text.as_bytes(), to).await.unwrap();
                let mut answer = [0; 100];
                let wait = Duration::from_secs(5);
                let (length, from) = tokio::time::timeout(wait, socket.recv_from(&mut answer))
                    .await
                    .expect("an answer")
                    .unwrap();
                assert_eq!(from, to);
                assert_eq!(answer[..length], *text.to_uppercase().as_bytes());
            }
        }
        server.join().unwrap();
        task.abort();
    }
}

#[tokio::test]
async fn idle_flows_end_and_make_room() {
    let Some((namespace, net)) = pod_net() else {
        return;
    };
    let echo = inside(&namespace, || std::net::UdpSocket::bind((POD, 53)).unwrap())
        .join()
        .unwrap();
    echo.set_nonblocking(true).unwrap();
    let echo = UdpSocket::from_std(echo).unwrap();
    let route = Route {
        port: 53,
        loopback: false,
    };
    let front = async |idle| {
        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = front.local_addr().unwrap();
        tokio::spawn(udp::serve(front, route, Arc::clone(&net), limits(1), idle));
        to
    };
    let arrives = async |patience| {
        let mut byte = [0];
        let arrived = tokio::time::timeout(patience, echo.recv_from(&mut byte)).await;
        arrived.is_ok().then_some(byte[0])
    };
    let first = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let second = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let long = Duration::from_secs(30);
    let to = front(long * 10).await;
    first.send_to(b"1", to).await.unwrap();
    assert_eq!(arrives(long).await, Some(b'1'));
    // The table holds one. Of what is sent later, much would come after the refused one if it came.
    second.send_to(b"2", to).await.unwrap();
    for _ in 0..10 {
        first.send_to(b"1", to).await.unwrap();
        assert_eq!(arrives(long).await, Some(b'1'));
    }
    // Who is idle is forgotten.
    let to = front(Duration::from_millis(50)).await;
    first.send_to(b"1", to).await.unwrap();
    assert_eq!(arrives(long).await, Some(b'1'));
    let end = Instant::now() + long;
    loop {
        second.send_to(b"2", to).await.unwrap();
        if arrives(Duration::from_millis(20)).await == Some(b'2') {
            break;
        }
        assert!(Instant::now() < end, "the first keeps its place");
    }
}

#[tokio::test]
async fn a_taken_port_is_one_line_that_names_its_holder() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let number = holder.local_addr().unwrap().port();
    let plan = pod(vec![container("app", vec![port(number)])]);
    let error = Publisher::take(&plan, true).unwrap_err();
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
    let expected = format!(
        "port {number} of container app: 127.0.0.1:{number} is taken by {} (pid {})",
        comm.trim_end(),
        std::process::id()
    );
    assert_eq!(error.to_string(), expected);
    // On both loopbacks: one line all the same.
    if let Ok(_both) = std::net::TcpListener::bind(("::1", number)) {
        let error = Publisher::take(&plan, true).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    // Without publishing it does not matter.
    assert!(
        Publisher::take(&plan, false)
            .unwrap()
            .published()
            .is_empty()
    );
    // Two pods with one hostPort.
    drop(holder);
    let hosted = PortPlan {
        host_port: Some(number),
        ..port(80)
    };
    let plan = pod(vec![container("app", vec![hosted])]);
    let first = Publisher::take(&plan, false).unwrap();
    let error = Publisher::take(&plan, false).unwrap_err();
    let start = format!("hostPort {number} of container app: [::]:{number} is taken by ");
    assert!(error.to_string().starts_with(&start), "{error}");
    first.close().await;
    Publisher::take(&plan, false).unwrap();
}

#[tokio::test]
async fn a_pod_s_ports_are_served_and_closed() {
    let Some((namespace, net)) = pod_net() else {
        return;
    };
    // A number that is free on the machine now.
    let number = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    upper(listen(&namespace, ([127, 0, 0, 1], number)));
    let plan = pod(vec![container("app", vec![port(number)])]);
    let mut publisher = Publisher::take(&plan, true).unwrap();
    publisher.serve(&net);
    let published = publisher.published().to_vec();
    assert_eq!(
        published[0].local,
        SocketAddr::from(([127, 0, 0, 1], number))
    );
    for port in &published {
        assert_eq!(
            talk(port.local, b"abc").await.unwrap(),
            b"ABC",
            "{}",
            port.local
        );
    }
    let mut open = TcpStream::connect(published[0].local).await.unwrap();
    open.write_all(b"x").await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    publisher.close().await;
    let mut rest = Vec::new();
    let _cut = open.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    assert!(TcpStream::connect(published[0].local).await.is_err());
}

/// A container on the machine's own network listens itself: whatever is taken for it would be taken from it.
#[tokio::test]
async fn nothing_is_taken_for_a_pod_on_the_machines_network() {
    let mut plan = pod(vec![container("a", vec![port(8080)])]);
    plan.host.network = true;
    // Whoever holds the port is not in the way.
    let holder = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    plan.containers[0].ports[0].port = holder.local_addr().unwrap().port();
    let publisher = Publisher::take(&plan, true).unwrap();
    let shown: Vec<_> = publisher.published().iter().map(|p| p.local).collect();
    let port = plan.containers[0].ports[0].port;
    assert_eq!(shown, [(std::net::Ipv6Addr::UNSPECIFIED, port).into()]);
}
