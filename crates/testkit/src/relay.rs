//! A TCP relay that is slow one way: what the server says arrives later, however much it is.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// A relay; its threads end with its connections.
#[derive(Debug)]
pub struct Relay {
    /// Where it listens.
    pub addr: SocketAddr,
    delay_ms: Arc<AtomicU64>,
}

impl Relay {
    /// To a server, whose bytes are `delay` late.
    pub fn start(server: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let relay = Self {
            addr,
            delay_ms: Arc::default(),
        };
        relay.set(delay);
        let delay_ms = Arc::clone(&relay.delay_ms);
        spawn(move || {
            for client in listener.incoming().flatten() {
                if let Ok(server) = TcpStream::connect(server) {
                    carry(&client, &server, &delay_ms);
                }
            }
        });
        relay
    }

    /// From now on bytes are so late.
    pub fn set(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.delay_ms.store(delay, Ordering::SeqCst);
    }
}

fn carry(client: &TcpStream, server: &TcpStream, delay_ms: &Arc<AtomicU64>) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
    let (mut up_from, mut up_to) = (clone(client), clone(server));
    spawn(move || {
        // An end is passed on as one.
        drop(std::io::copy(&mut up_from, &mut up_to));
        drop(up_to.shutdown(Shutdown::Both));
    });
    let (send, receive) = channel();
    let (mut from, delay_ms) = (clone(server), Arc::clone(delay_ms));
    spawn(move || {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let delay = Duration::from_millis(delay_ms.load(Ordering::SeqCst));
            let late = (Instant::now() + delay, bytes[..count].to_vec());
            if send.send(late).is_err() {
                return;
            }
        }
    });
    let to = clone(client);
    spawn(move || deliver(&receive, to));
}

fn deliver(receive: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    for (due, bytes) in receive {
        sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    // The other side may have gone first.
    drop(to.shutdown(Shutdown::Both));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_is_late() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Relay::start(listener.local_addr().unwrap(), Duration::from_millis(100));
        let mut client = TcpStream::connect(relay.addr).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let mut byte = [0];
        client.write_all(b"a").unwrap();
        server.read_exact(&mut byte).unwrap();
        let began = Instant::now();
        server.write_all(b"b").unwrap();
        client.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"b");
        assert!(began.elapsed() >= Duration::from_millis(100));
    }
}
