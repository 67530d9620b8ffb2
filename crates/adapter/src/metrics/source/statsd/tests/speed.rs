//! How fast it is, and how large: run by hand, of a release build.
//!
//! ```text
//!   cargo test --release -p podkit-adapter --lib statsd::tests::speed -- --ignored --nocapture --test-threads 1
//! ```

use std::net::UdpSocket;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use podkit_foundation::params::Addr;

use super::*;
use crate::metrics::source::statsd::listen::{lock, start};
use crate::metrics::source::statsd::sockets::{Places, bind, drops, inode};

/// Packets of at most 1,400 bytes, of lines as applications send them.
fn packets(names: u32, tags: bool) -> (Vec<Vec<u8>>, u64) {
    let mut packets = vec![Vec::new()];
    let mut count = 0;
    for at in 0..20_000_u32 {
        let name = at * 7919 % names;
        let kind = ["1|c", "320|ms", "5|g", "1|c|@0.1"][at as usize % 4];
        let tags = match tags {
            true => format!("|#env:prod,route:r{}", name % 50),
            false => String::new(),
        };
        let line = format!(
            "app{}.web.request.handler{}.count:{kind}{tags}\n",
            name % 4,
            name / 4 * 4 + at % 4
        );
        let last = packets.last_mut().unwrap();
        if last.len() + line.len() > 1400 {
            packets.push(Vec::new());
        }
        packets
            .last_mut()
            .unwrap()
            .extend_from_slice(line.as_bytes());
        count += 1;
    }
    (packets, count)
}

/// CPU time of the thread that takes lines.
fn cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let read =
        |path: &std::path::Path, file: &str| std::fs::read_to_string(path.join(file)).unwrap();
    let statsd = tasks
        .map(|task| task.unwrap().path())
        .find(|task| read(task, "comm").trim() == "statsd");
    let stat = read(&statsd.unwrap(), "schedstat");
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

#[test]
#[ignore = "a measurement"]
fn lines_a_cpu_second() {
    for (names, tags) in [(100, false), (100, true), (10_000, false), (10_000, true)] {
        let (packets, count) = packets(names, tags);
        let mut table = Table::new(Mapping::none(0), Dialects::ALL, 100_000, [1, 2]);
        for packet in &packets {
            table.packet(packet);
        }
        let begun = Instant::now();
        for _ in 0..50 {
            for packet in &packets {
                table.packet(packet);
            }
        }
        let each = begun.elapsed().as_secs_f64() / 50.0 / count as f64;
        println!(
            "{names} names, tags {tags}: {:.0} ns a line without sockets",
            each * 1e9
        );
        let places = Places {
            udp: Addr::parse("127.0.0.1:0").ok(),
            tcp: None,
            unixgram: None,
            read_buffer: 8 << 20,
        };
        let sockets = bind(&places).unwrap();
        let socket = sockets.udp.as_ref().unwrap();
        let (to, inode) = (socket.local_addr().unwrap(), inode(socket).unwrap());
        let table = Arc::new(Mutex::new(Table::new(
            Mapping::none(0),
            Dialects::ALL,
            100_000,
            [1, 2],
        )));
        let _thread = start(sockets, Arc::clone(&table), None).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(to).unwrap();
        let mut from = (Duration::ZERO, 0);
        for turn in 0..60 {
            for packet in &packets {
                sender.send(packet).unwrap();
            }
            if turn == 9 {
                std::thread::sleep(Duration::from_millis(500));
                from = (cpu(), lock(&table).counts.lines);
            }
        }
        std::thread::sleep(Duration::from_secs(1));
        let (took, lines) = (cpu() - from.0, lock(&table).counts.lines - from.1);
        let rate = lines as f64 / took.as_secs_f64();
        println!(
            "{names} names, tags {tags}: {:.2} million lines a CPU second by UDP, {} of {} packets dropped",
            rate / 1e6,
            drops(inode).unwrap(),
            packets.len() * 60
        );
    }
}

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse::<usize>()
        .unwrap()
        << 10
}

#[test]
#[ignore = "a measurement"]
fn bytes_a_series() {
    // What is freed would be used again.
    let mut kept = Vec::new();
    let kinds = [
        (
            "|c with tags",
            1,
            "app.request:1|c|#route:rAT,env:prod,host:web1",
        ),
        ("|c without", 1, "app.request.route.rAT.prod.web1:1|c"),
        (
            "|g with tags",
            1,
            "app.request:1|g|#route:rAT,env:prod,host:web1",
        ),
        (
            "|ms, one time",
            5,
            "app.request:320|ms|#route:rAT,env:prod,host:web1",
        ),
        (
            "|s, one member",
            5,
            "app.request:ann|s|#route:rAT,env:prod,host:web1",
        ),
    ];
    for (what, share, line) in kinds {
        for count in [100_000, 230_000] {
            let count = count / share;
            let before = resident();
            let mut table = Table::new(Mapping::none(0), Dialects::ALL, 1_000_000, [1, 2]);
            for at in 0..count {
                table.packet(line.replace("AT", &at.to_string()).as_bytes());
            }
            assert_eq!(table.len(), count);
            let each = (resident() - before) / count;
            println!("{count} of {what}: {each} bytes each");
            kept.push(table);
        }
    }
}
