//! A name server of a test's own: the addresses of one name, which the test changes.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::spawn;

/// The bytes before the question (RFC 1035, 4.1.1).
const HEADER: usize = 12;

/// Answers by UDP as long as the process lives; what it says is good for a second.
#[derive(Debug)]
pub struct NameServer {
    addrs: Arc<Mutex<Vec<Ipv4Addr>>>,
}

impl NameServer {
    /// Listens at `at`, and knows `name` only.
    pub fn start(at: SocketAddr, name: &'static str, addrs: &[Ipv4Addr]) -> Self {
        let socket = UdpSocket::bind(at).unwrap_or_else(|error| panic!("{at}: {error}"));
        let addrs = Arc::new(Mutex::new(addrs.to_vec()));
        let known = Arc::clone(&addrs);
        spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut question) {
                let known = known.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(answer) = answer(&question[..length], name, &known) {
                    drop(socket.send_to(&answer, peer));
                }
            }
        });
        Self { addrs }
    }

    /// From now on the name has these addresses.
    pub fn set(&self, addrs: &[Ipv4Addr]) {
        *self.addrs.lock().unwrap_or_else(PoisonError::into_inner) = addrs.to_vec();
    }
}

/// The answer to a message with one question; None when it is none.
fn answer(message: &[u8], name: &str, addrs: &[Ipv4Addr]) -> Option<Vec<u8>> {
    let (mut labels, mut at) = (Vec::new(), HEADER);
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = message.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        at += length;
    }
    let is_address = message.get(at..at + 2)? == [0, 1];
    let end = at + 4;
    let is_known = labels.join(".") == name;
    let addrs = match is_known && is_address {
        true => addrs,
        false => &[],
    };
    let mut out = message.get(..2)?.to_vec();
    // An answer of a server that resolves for others; an unknown name is told as such.
    out.extend([0x81, if is_known { 0x80 } else { 0x83 }, 0, 1, 0]);
    out.extend([u8::try_from(addrs.len()).expect("a few"), 0, 0, 0, 0]);
    out.extend(message.get(HEADER..end)?);
    for addr in addrs {
        // The name of the question, A, IN, one second, four bytes.
        out.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        out.extend(addr.octets());
    }
    Some(out)
}
