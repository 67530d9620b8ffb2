//! Lines over real sockets.

use std::io::Write as _;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use podkit_foundation::params::Addr;

use super::*;
use crate::metrics::source::statsd::listen::{lock, start};
use crate::metrics::source::statsd::relay::Relayed;
use crate::metrics::source::statsd::sockets::{Places, bind};

/// Where lines are handed on once they are in the table.
struct Relay {
    socket: UdpSocket,
    got: String,
}

impl Relay {
    /// Waits for the line.
    fn until(&mut self, line: &str) {
        while !self.got.ends_with(line) {
            let mut buffer = [0; 2000];
            let size = self.socket.recv(&mut buffer).unwrap();
            self.got
                .push_str(std::str::from_utf8(&buffer[..size]).unwrap());
        }
    }
}

#[test]
fn lines_come_by_every_way_and_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("statsd.sock");
    // Of a process that was killed.
    drop(UnixDatagram::bind(&path).unwrap());
    let places = Places {
        udp: Addr::parse("127.0.0.1:0").ok(),
        tcp: Addr::parse("localhost:0").ok(),
        unixgram: Some((path.clone(), 0o722)),
        read_buffer: 1 << 16,
    };
    let sockets = bind(&places).unwrap();
    let udp = sockets.udp.as_ref().unwrap().local_addr().unwrap();
    let tcp = sockets.tcp.as_ref().unwrap().local_addr().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let patience = Some(Duration::from_secs(20));
    socket.set_read_timeout(patience).unwrap();
    let target = socket.local_addr().unwrap().to_string();
    let relayed = Relayed::new(target.clone());
    let table = Arc::new(Mutex::new(plain()));
    let to = (Addr::parse(&target).unwrap(), Arc::clone(&relayed));
    let thread = start(sockets, Arc::clone(&table), Some(to)).unwrap();
    let mut relay = Relay {
        socket,
        got: String::new(),
    };
    let shows = |name: &str, value: &str| {
        let all = series(&text(&lock(&table)));
        assert_eq!(all.get(name).map(String::as_str), Some(value), "{name}");
    };

    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.send_to(b"udp:1|c\nudp:2|c", udp).unwrap();
    relay.until("udp:2|c\n");
    shows("udp", "3");
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"unix:4|c\n", &path).unwrap();
    relay.until("unix:4|c\n");
    shows("unix", "4");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o722);
    let mut stream = TcpStream::connect(tcp).unwrap();
    stream.write_all(b"tcp:1|c\ntc").unwrap();
    relay.until("tcp:1|c\n");
    shows("tcp", "1");
    stream.write_all(b"p:5|c").unwrap();
    drop(stream);
    relay.until("tcp:5|c\n");
    shows("tcp", "6");
    shows("statsd_exporter_tcp_connections_total", "1");
    shows("statsd_exporter_udp_packets_total", "1");
    shows("statsd_exporter_unixgram_packets_total", "1");

    assert_eq!(relay.got, "udp:1|c\nudp:2|c\nunix:4|c\ntcp:1|c\ntcp:5|c\n");

    let again = bind(&Places {
        udp: Some(Addr::parse(&udp.to_string()).unwrap()),
        tcp: None,
        unixgram: None,
        read_buffer: 1 << 16,
    });
    assert_eq!(again.unwrap_err(), format!("udp {udp}: address in use"));
    drop(thread);
    assert!(!path.exists());
    TcpStream::connect(tcp).unwrap_err();
}
