//! Servers that hold nothing and answer every `get`, Redis' or memcached's, with a letter of their own: so one answer says where a
//! key went.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

/// What comes before the length of a key in Redis' `get`.
const GET: &[u8] = b"*2\r\n$3\r\nget\r\n$";

/// Redis' `get`.
pub(crate) fn redis_get(key: &[u8]) -> Vec<u8> {
    let length = key.len().to_string();
    [GET, length.as_bytes(), b"\r\n", key, b"\r\n"].concat()
}

/// memcached's.
pub(crate) fn memcached_get(key: &[u8]) -> Vec<u8> {
    [b"get ", key, b"\r\n"].concat()
}

/// A server on a TCP address of the loopback; its port.
pub(crate) fn tcp(addr: &str, letter: char) -> u16 {
    let listener = TcpListener::bind(addr).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream: TcpStream = stream.unwrap();
            thread::spawn(move || serve(stream, letter));
        }
    });
    port
}

/// A server on a unix socket.
pub(crate) fn unix(path: &Path, letter: char) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream: UnixStream = stream.unwrap();
            thread::spawn(move || serve(stream, letter));
        }
    });
}

/// Until the other end is gone.
fn serve(mut stream: impl Read + Write, letter: char) {
    let (mut held, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        held.extend_from_slice(&buffer[..count]);
        let (mut taken, mut answers) = (0, Vec::new());
        while let Some((length, answer)) = answer(&held[taken..], letter) {
            taken += length;
            answers.extend_from_slice(answer.as_bytes());
        }
        held.drain(..taken);
        if stream.write_all(&answers).is_err() {
            return;
        }
    }
}

/// The answer to the first request, and how long the request is; none while it isn't whole.
fn answer(held: &[u8], letter: char) -> Option<(usize, String)> {
    let line = |from: usize| {
        let rest = held.get(from..)?;
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        Some((str::from_utf8(&rest[..end]).unwrap(), from + end + 2))
    };
    if held.first() == Some(&b'*') {
        let (length, start) = line(GET.len())?;
        let end = start + length.parse::<usize>().unwrap() + 2;
        return (held.len() >= end).then(|| (end, format!("$1\r\n{letter}\r\n")));
    }
    let (request, end) = line(0)?;
    let key = request.strip_prefix("get ").unwrap().trim_end();
    Some((end, format!("VALUE {key} 0 1\r\n{letter}\r\nEND\r\n")))
}
