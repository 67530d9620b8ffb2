//! The way out, in a world of the test's own.

use std::sync::mpsc::channel;

use super::world::{INTERNET, MACHINE, UPLINK, UPLINK_MTU, World, seen, who_is_it, write_sysctl};
use super::*;
use crate::net::egress::sweep;
use crate::net::link::Route;
use crate::net::veth::{GATEWAY, address_of, interface};

#[test]
fn interfaces_are_named_by_their_address() {
    let name = interface(Ipv4Addr::new(10, 87, 255, 254));
    assert_eq!(name, "podkit-255-254");
    // IFNAMSIZ
    assert!(name.len() < 16);
    assert_eq!(address_of(&name), Some(Ipv4Addr::new(10, 87, 255, 254)));
    for other in ["podkit-", "podkit-1", "podkit-1-256", "eth0", "podkit-a-b"] {
        assert_eq!(address_of(other), None, "{other}");
    }
}

#[tokio::test]
async fn a_pod_gets_out_and_nothing_is_left() {
    let Some(world) = World::new() else {
        return;
    };
    let before = world.look();
    let pod = world.pod("web");
    let other = world.pod("other");
    assert_eq!((&pod.warnings, &other.warnings), (&vec![], &vec![]));
    let far = who_is_it(&world.internet, INTERNET);
    let machine = who_is_it(&world.machine, Ipv4Addr::UNSPECIFIED);
    let own = IpAddr::from(pod.net.address());
    // Masqueraded outside, itself to the machine and to its like.
    assert_eq!(seen(&pod.net, far).await.unwrap(), IpAddr::from(MACHINE));
    assert_eq!(seen(&other.net, far).await.unwrap(), IpAddr::from(MACHINE));
    for address in [GATEWAY, MACHINE] {
        let at = (address, machine.port()).into();
        assert_eq!(seen(&pod.net, at).await.unwrap(), own);
    }
    let there = who_is_it(&other.namespace, other.net.address());
    assert_eq!(seen(&pod.net, there).await.unwrap(), own);
    // The machine reaches the pod by its address, without help.
    let here = who_is_it(&pod.namespace, pod.net.address());
    world.on_machine(move || std::net::TcpStream::connect(here).unwrap());
    // As wide as the way out.
    let mtu = done_inside(&pod.namespace, || {
        Route::open().unwrap().find("eth0").unwrap().unwrap().mtu
    });
    assert_eq!(mtu, UPLINK_MTU);
    // Only what has to forward does.
    let during = world.look();
    assert!(
        during.contains(&format!("{UPLINK} forwarding 1")),
        "{during:?}"
    );
    assert!(during.contains(&"lo forwarding 0".to_owned()), "{during:?}");
    world.stop(pod);
    assert_eq!(seen(&other.net, far).await.unwrap(), IpAddr::from(MACHINE));
    world.stop(other);
    assert_eq!(world.look(), before);
    assert_eq!(
        std::fs::read_dir(world.addresses.path()).unwrap().count(),
        0
    );
}

#[tokio::test]
async fn nobody_comes_in_or_through() {
    let Some(world) = World::new() else {
        return;
    };
    let pod = world.pod("web");
    let (address, machine) = (pod.net.address(), MACHINE);
    let listener = listen(&pod.namespace, (address, 80));
    listener.set_nonblocking(true).unwrap();
    // Somebody outside who knows where pods are, and sends a datagram as proof that the first ones have arrived.
    let (said, proof) = channel();
    let knocker = world.on_machine(|| std::net::UdpSocket::bind((machine_any(), 7)).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 8];
        knocker.recv_from(&mut buffer).unwrap();
        said.send(()).unwrap();
    });
    world.on_internet(move || {
        let mut route = Route::open().unwrap();
        let world = route.find("world").unwrap().unwrap();
        route.add_route(address, world.index).unwrap();
        // ARP would find nobody of that address: the machine is asked to route it.
        let neighbour = std::process::Command::new("ip")
            .args([
                "route",
                "replace",
                &format!("{address}/32"),
                "via",
                &machine.to_string(),
            ])
            .args(["dev", "world", "onlink"])
            .status();
        assert!(neighbour.unwrap().success());
        let knock = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let _under_way = rustix::net::connect(&knock, &SocketAddr::from((address, 80)));
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"x", (machine, 7)).unwrap();
        knock
    });
    proof.recv_timeout(Duration::from_secs(5)).unwrap();
    let accepted = listener.accept();
    assert_eq!(accepted.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    // And a pod can't speak with an address that isn't its own.
    let forged = Ipv4Addr::new(10, 87, 200, 200);
    let listener = world.on_machine(|| std::net::UdpSocket::bind((machine_any(), 8)).unwrap());
    listener
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    done_inside(&pod.namespace, move || {
        let mut route = Route::open().unwrap();
        route.add_address(crate::net::link::LO, forged).unwrap();
        let send = |from: Ipv4Addr| {
            let socket = std::net::UdpSocket::bind((from, 0)).unwrap();
            socket.send_to(b"x", (GATEWAY, 8)).unwrap();
        };
        send(forged);
        send(address);
    });
    let (_, from) = listener.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(from.ip(), IpAddr::from(address));
    world.stop(pod);
}

fn machine_any() -> Ipv4Addr {
    Ipv4Addr::UNSPECIFIED
}

fn done_inside<T: Send + 'static>(
    namespace: &OwnedFd,
    run: impl FnOnce() -> T + Send + 'static,
) -> T {
    inside(namespace, run).join().unwrap()
}

#[tokio::test]
async fn a_machine_that_is_a_router_stays_one() {
    let Some(world) = World::new() else {
        return;
    };
    world.on_machine(|| write_sysctl("ip_forward", "1"));
    let before = world.look();
    let pod = world.pod("web");
    world.stop(pod);
    assert_eq!(world.look(), before);
    // So does one that becomes a router meanwhile.
    world.on_machine(|| write_sysctl("ip_forward", "0"));
    let pod = world.pod("web");
    world.on_machine(|| write_sysctl("ip_forward", "1"));
    world.stop(pod);
    assert_eq!(world.look(), before);
}

#[tokio::test]
async fn what_killed_supervisors_left_is_used_and_swept() {
    let Some(world) = World::new() else {
        return;
    };
    let before = world.look();
    let far = who_is_it(&world.internet, INTERNET);
    let pod = world.pod("web");
    let was = pod.net.address();
    world.kill(pod);
    assert_ne!(world.look(), before);
    // At once again: the kernel may not have come to the dead one's interface yet.
    let pod = world.pod("web");
    assert_eq!(pod.net.address(), was);
    assert_eq!(seen(&pod.net, far).await.unwrap(), IpAddr::from(MACHINE));
    world.stop(pod);
    assert_eq!(world.look(), before);
    // Without another one of its own: by the next start of any.
    let (killed, lives) = (world.pod("killed"), world.pod("lives"));
    world.kill(killed);
    let dir = world.addresses.path().to_owned();
    world.on_machine(move || sweep(&dir));
    assert_eq!(seen(&lives.net, far).await.unwrap(), IpAddr::from(MACHINE));
    world.kill(lives);
    let dir = world.addresses.path().to_owned();
    world.on_machine(move || sweep(&dir));
    // The interfaces are the kernel's to remove, a moment later.
    let end = std::time::Instant::now() + Duration::from_secs(30);
    while world.look() != before && std::time::Instant::now() < end {
        std::thread::yield_now();
    }
    assert_eq!(world.look(), before);
}

#[tokio::test]
async fn fifty_come_and_go_at_once() {
    let Some(world) = World::new() else {
        return;
    };
    let before = world.look();
    let far = who_is_it(&world.internet, INTERNET);
    let world = Arc::new(world);
    let (made, pods) = channel();
    let threads: Vec<_> = (0..50)
        .map(|n| {
            let (world, made) = (Arc::clone(&world), made.clone());
            std::thread::spawn(move || {
                let pod = world.pod(&format!("web-{n}"));
                // Half of them go at once, while others come.
                if n % 2 == 0 {
                    world.stop(pod);
                } else {
                    made.send(pod).unwrap();
                }
            })
        })
        .collect();
    drop(made);
    let pods: Vec<_> = pods.into_iter().collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(pods.len(), 25);
    for pod in &pods {
        assert_eq!(pod.warnings, Vec::<String>::new());
        assert_eq!(seen(&pod.net, far).await.unwrap(), IpAddr::from(MACHINE));
    }
    let stopping: Vec<_> = pods
        .into_iter()
        .map(|pod| {
            let world = Arc::clone(&world);
            std::thread::spawn(move || world.stop(pod))
        })
        .collect();
    for thread in stopping {
        thread.join().unwrap();
    }
    assert_eq!(world.look(), before);
}

/// The chains of iptables that drop what they don't know.
async fn past_iptables(setup: &[&[&str]], chain: &str) {
    let Some(world) = World::new() else {
        return;
    };
    for args in setup {
        if world.program("iptables-nft", args).is_none() {
            return;
        }
    }
    let save = || world.program("iptables-nft-save", &[]).unwrap();
    let rules = || -> Vec<String> {
        let lines = save();
        lines
            .lines()
            .filter(|l| l.starts_with('-'))
            .map(str::to_owned)
            .collect()
    };
    let before = rules();
    let far = who_is_it(&world.internet, INTERNET);
    let pod = world.pod("web");
    assert_eq!(pod.warnings, Vec::<String>::new());
    assert_eq!(seen(&pod.net, far).await.unwrap(), IpAddr::from(MACHINE));
    // iptables understands what was put there.
    let shown = rules();
    for way in ["-i", "-o"] {
        let line = format!("-A {chain} {way} podkit-+ -m comment --comment podkit -j ACCEPT");
        assert_eq!(
            shown.iter().filter(|rule| **rule == line).count(),
            1,
            "{shown:?}"
        );
    }
    // Once for all.
    let second = world.pod("second");
    assert_eq!(rules(), shown);
    world.stop(second);
    world.stop(pod);
    assert_eq!(rules(), before);
}

#[tokio::test]
async fn pods_get_past_iptables() {
    let drop: &[&[&str]] = &[&["-P", "FORWARD", "DROP"]];
    past_iptables(drop, "FORWARD").await;
    past_iptables(&[&["-A", "FORWARD", "-j", "REJECT"]], "FORWARD").await;
}

#[tokio::test]
async fn pods_get_past_docker() {
    let docker: &[&[&str]] = &[
        &["-P", "FORWARD", "DROP"],
        &["-N", "DOCKER-USER"],
        &["-A", "FORWARD", "-j", "DOCKER-USER"],
        &["-A", "FORWARD", "-i", "docker0", "-j", "ACCEPT"],
        &["-A", "DOCKER-USER", "-j", "RETURN"],
    ];
    past_iptables(docker, "DOCKER-USER").await;
}

#[tokio::test]
async fn other_packet_filters_are_named() {
    let Some(world) = World::new() else {
        return;
    };
    let chain = "add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; }";
    for command in [
        "add table inet firewalld",
        chain,
        "add chain inet firewalld zones",
        "add rule inet firewalld filter_FORWARD jump zones",
        "add rule inet firewalld filter_FORWARD reject",
    ] {
        if world.program("nft", &[command]).is_none() {
            return;
        }
    }
    let pod = world.pod("web");
    assert_eq!(
        pod.warnings,
        [
            "pods may not get out of this machine: the chain filter_FORWARD of the nftables table inet firewalld drops \
             what it does not know; allow them with `firewall-cmd --zone=trusted --add-source=10.87.0.0/16`"
        ]
    );
    world.stop(pod);
    // As it was said, it is done.
    let trust = "add rule inet firewalld zones ip saddr 10.87.0.0/16 accept";
    world.program("nft", &[trust]).unwrap();
    let pod = world.pod("web");
    assert_eq!(pod.warnings, Vec::<String>::new());
    world.stop(pod);
}

#[test]
fn a_network_of_the_same_addresses_is_named() {
    let Some(world) = World::new() else {
        return;
    };
    let lease = AddressLease::take(world.addresses.path(), "default", "web").unwrap();
    let address = lease.address();
    drop(lease);
    world.on_machine(move || {
        let mut route = Route::open().unwrap();
        let up = route.find(UPLINK).unwrap().unwrap();
        route.add_route(address, up.index).unwrap();
    });
    let namespace = namespace().unwrap();
    let lease = AddressLease::take(world.addresses.path(), "default", "web").unwrap();
    let refused = world.on_machine(move || {
        let net = PodNet::enter(namespace.try_clone().unwrap(), lease.address()).unwrap();
        Egress::veth(&net, namespace.as_fd(), &lease).unwrap_err()
    });
    // That very address is on the way somewhere else.
    assert_eq!(
        refused.to_string(),
        "setting up the pod's interface: File exists (os error 17)"
    );
}

#[test]
fn without_the_right_to_it_there_is_no_way_out() {
    let Some(world) = World::new() else {
        return;
    };
    let lease = AddressLease::take(world.addresses.path(), "default", "web").unwrap();
    let namespace = namespace().unwrap();
    let refused = world.on_machine(move || {
        let net = PodNet::enter(namespace.try_clone().unwrap(), lease.address()).unwrap();
        // Of this thread only, which ends with the closure.
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective
            .remove(rustix::thread::CapabilitySet::NET_ADMIN);
        rustix::thread::set_capabilities(None, sets).unwrap();
        Egress::veth(&net, namespace.as_fd(), &lease).unwrap_err()
    });
    assert_eq!(
        refused.to_string(),
        "this user may not make network interfaces (CAP_NET_ADMIN)"
    );
    // What was begun is no more.
    assert!(!world.look().iter().any(|line| line.starts_with("podkit-")));
}
