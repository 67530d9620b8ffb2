//! An HTTP proxy that leads to one server, whatever name it is asked for: names that only it knows prove that it was asked.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// The proxy. Its threads end with the test.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub addr: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts one on a free port that asks for this user's password (`NAME:PASSWORD` in base64), if any.
    pub fn start(target: SocketAddr, password: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let heads = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heads);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                // A client that goes away is no fault.
                std::thread::spawn(move || drop(serve(&stream, target, password, &kept)));
            }
        });
        Self { addr, heads }
    }

    /// The heads of the requests since the last time this was called.
    pub fn heads(&self) -> Vec<String> {
        std::mem::take(&mut self.heads.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn serve(
    mut client: &TcpStream,
    target: SocketAddr,
    password: Option<&str>,
    heads: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut from = BufReader::new(client);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let mut kept = heads.lock().unwrap_or_else(PoisonError::into_inner);
    kept.push(head.clone());
    drop(kept);
    let wanted = password.map(|password| format!("proxy-authorization: basic {password}\r\n"));
    if wanted.is_some_and(|wanted| !head.to_lowercase().contains(&wanted.to_lowercase())) {
        let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
        return client.write_all(answer.as_bytes());
    }
    let mut server = TcpStream::connect(target)?;
    match head.starts_with("CONNECT ") {
        true => client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?,
        // Servers have to understand the whole URL as well (RFC 9112, 3.2.2).
        false => server.write_all(head.as_bytes())?,
    }
    let (mut back, mut to) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || {
        drop(io::copy(&mut back, &mut to));
        drop(to.shutdown(std::net::Shutdown::Write));
    });
    io::copy(&mut from, &mut server)?;
    server.shutdown(std::net::Shutdown::Write)
}
