//! A real memcached, and a client that shows replies as they are.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::net::free_addr;
use crate::peers::{Server, directory, launch, pinned};
use crate::program;

/// A server on a port of its own.
#[derive(Debug)]
pub struct Memcached {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its process.
    pub server: Server,
}

impl Memcached {
    /// Starts one.
    pub fn start() -> Self {
        Self::start_on(free_addr(), None)
    }

    /// The same at an address, on a core.
    pub fn start_on(addr: SocketAddr, core: Option<usize>) -> Self {
        Self::start_with(addr, core, &[])
    }

    /// The same with more flags.
    pub fn start_with(addr: SocketAddr, core: Option<usize>, flags: &[&str]) -> Self {
        let found = program("memcached").expect("memcached is installed");
        let mut command = pinned(core, &found);
        command
            .args(["-l", &addr.ip().to_string()])
            .args(["-p", &addr.port().to_string()])
            .args(["-U", "0", "-m", "64", "-t", "1"])
            .args(flags);
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "root"]);
        }
        let server = launch("memcached", directory(None), &mut command, addr);
        Self { addr, server }
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::connect(self.addr)
    }
}

/// A connection.
#[derive(Debug)]
pub struct Client(TcpStream);

impl Client {
    /// To a server, or what stands for one.
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("it listens");
        stream.set_nodelay(true).expect("an option of TCP");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout");
        Self(stream)
    }

    /// Sends bytes in pieces of at most this many, and gives what comes until `end` has come, `end` included; or all that came before the
    /// connection ended.
    pub fn exchange(&mut self, bytes: &[u8], piece: usize, end: &str) -> String {
        let mut writes = self.0.try_clone().expect("another descriptor");
        let mut said = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for part in bytes.chunks(piece) {
                    // The other side may have ended it.
                    if writes.write_all(part).is_err() {
                        return;
                    }
                }
            });
            let mut buffer = vec![0; 64 * 1024];
            while !said.ends_with(end.as_bytes()) {
                match self.0.read(&mut buffer) {
                    Ok(count) if count > 0 => said.extend_from_slice(&buffer[..count]),
                    Ok(_) => return,
                    Err(error) => {
                        let said = String::from_utf8_lossy(&said);
                        panic!("{error}, after {} bytes: {said}", said.len());
                    }
                }
            }
        });
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Sends lines (apart by `|`), and gives the replies to them, apart likewise.
    pub fn lines(&mut self, lines: &str) -> String {
        let text = format!("{}\r\nmn\r\n", lines.replace('|', "\r\n"));
        let said = self.exchange(text.as_bytes(), usize::MAX, "MN\r\n");
        let said = said.strip_suffix("MN\r\n").unwrap_or(&said);
        said.trim_end().replace("\r\n", "|")
    }
}
