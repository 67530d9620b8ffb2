//! Names: the table of questions, and the way to a resolver that a pod can't reach.

use std::collections::HashMap;
use std::time::Instant;

use proptest::prelude::*;

use super::world::World;
use super::*;
use crate::net::dns::{Forwarder, NAMESERVER, Queries, reachable_from_pod};

fn client(n: u16) -> SocketAddr {
    SocketAddr::from(([10, 87, 0, 2], 1000 + n))
}

fn question(id: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    // Recursion desired, one question: the root's A.
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1]);
    bytes
}

proptest! {
    /// Whatever is asked, in whatever order it is answered: each answer finds its client, with the client's number.
    #[test]
    fn answers_find_their_clients(asked in proptest::collection::vec((0u16..20, any::<u16>(), 0u16..4), 1..50), order in any::<u64>()) {
        let mut queries = Queries::default();
        let now = Instant::now();
        let mut sent: HashMap<[u8; 2], (SocketAddr, u16)> = HashMap::new();
        for (who, id, random) in &asked {
            let mut datagram = question(*id);
            prop_assert!(queries.ask(now, client(*who), &mut datagram, *random));
            prop_assert_eq!(&datagram[2..], &question(0)[2..]);
            let twice = sent.insert([datagram[0], datagram[1]], (client(*who), *id));
            prop_assert!(twice.is_none());
        }
        let mut answers: Vec<_> = sent.into_iter().collect();
        answers.sort_by_key(|(number, _)| u64::from(u16::from_be_bytes(*number)).wrapping_mul(order | 1));
        for (number, (who, id)) in answers {
            let mut datagram = question(u16::from_be_bytes(number));
            prop_assert_eq!(queries.answer(&mut datagram), Some(who));
            prop_assert_eq!(datagram, question(id));
        }
        prop_assert_eq!(queries.len(), 0);
    }

    #[test]
    fn any_datagram_is_borne(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let mut queries = Queries::default();
        let mut asked = bytes.clone();
        if !queries.ask(Instant::now(), client(1), &mut asked, 7) {
            prop_assert_eq!(&asked, &bytes);
            prop_assert!(bytes.len() < 12 || bytes[2] & 0x80 != 0);
        }
        let _nobody = Queries::default().answer(&mut asked);
    }
}

#[test]
fn a_flood_of_questions_loses_the_oldest() {
    let mut queries = Queries::default();
    let start = Instant::now();
    let mut first = question(1);
    queries.ask(start, client(0), &mut first, 0);
    for n in 1..3000u16 {
        let now = start + Duration::from_micros(u64::from(n));
        assert!(queries.ask(now, client(1), &mut question(n), n));
        assert!(queries.len() <= 1024);
    }
    assert_eq!(queries.answer(&mut first), None);
    let mut last = question(2999);
    assert_eq!(queries.answer(&mut last), Some(client(1)));
    // Nobody waits any more after a while.
    let later = start + Duration::from_secs(60);
    for n in 0..2 {
        queries.ask(later, client(2), &mut question(n), n);
    }
    assert_eq!(queries.len(), 2);
}

#[test]
fn what_a_pod_can_ask_itself() {
    for (server, reachable) in [
        ("192.0.2.1", true),
        ("127.0.0.1", false),
        ("127.0.0.53", false),
        ("0.0.0.0", false),
        ("::1", false),
        ("fd00::1", false),
    ] {
        assert_eq!(
            reachable_from_pod(server.parse().unwrap()),
            reachable,
            "{server}"
        );
    }
}

/// A resolver on the machine's loopback that answers a question with itself, the bit of an answer set.
fn resolver(world: &World) -> SocketAddr {
    let (udp, tcp) = world.on_machine(|| {
        let udp = std::net::UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let tcp = std::net::TcpListener::bind(udp.local_addr().unwrap()).unwrap();
        (udp, tcp)
    });
    let at = udp.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 65_535];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            buffer[2] |= 0x80;
            udp.send_to(&buffer[..length], from).unwrap();
        }
    });
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = tcp.accept() {
            let mut buffer = [0; 100];
            let length = stream.read(&mut buffer).unwrap();
            buffer[4] |= 0x80;
            stream.write_all(&buffer[..length]).unwrap();
        }
    });
    at
}

#[test]
fn names_come_from_the_machines_own_resolver() {
    let Some(world) = World::new() else {
        return;
    };
    let at = resolver(&world);
    let pod = world.pod("web");
    let (net, inside_of) = (Arc::clone(&pod.net), pod.namespace.try_clone().unwrap());
    // On the machine, as the supervisor is.
    world.on_machine(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            // Nobody is at the first.
            let nobody = SocketAddr::from(([127, 0, 0, 99], 53));
            let forwarder = Forwarder::start(&net, vec![nobody, at]).unwrap();
            let server = SocketAddr::from((NAMESERVER, 53));
            let socket = net.connect_udp(server).await.unwrap();
            let mut buffer = [0; 100];
            let wait = Duration::from_millis(100);
            // A client asks again: the first question may have gone to the one who is not there.
            let mut tries = 0;
            let length = loop {
                tries += 1;
                assert!(tries < 50, "no answer");
                socket.send(&question(42)).await.unwrap();
                let answer = tokio::time::timeout(wait, socket.recv(&mut buffer)).await;
                if let Ok(Ok(length)) = answer {
                    break length;
                }
            };
            let mut expected = question(42);
            expected[2] |= 0x80;
            assert_eq!(buffer[..length], expected);
            // By TCP.
            let mut stream = net.connect(server).await.unwrap();
            let mut asked = vec![0, 17];
            asked.extend(question(7));
            stream.write_all(&asked).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer[..4], asked[..4]);
            assert_eq!(answer[4], asked[4] | 0x80);
            // A name server in the pod finds its port free, on all addresses.
            listen(&inside_of, (Ipv4Addr::UNSPECIFIED, 53));
            inside(&inside_of, || {
                std::net::UdpSocket::bind("0.0.0.0:53").unwrap()
            })
            .join()
            .unwrap();
            drop(forwarder);
            assert!(net.connect(server).await.is_err());
        });
    });
    world.stop(pod);
}
