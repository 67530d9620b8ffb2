//! The handshake, by rustls.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CommonState, ProtocolVersion, ServerConfig};

use super::record::Protection;
use super::{Buf, Socket, TlsStream, Transport};
use crate::net::{NEWCOMER, Worker};

/// For a client that speaks plain HTTP to us.
const PLAIN_HTTP: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 41\r\nConnection: close\r\n\r\nplain HTTP was sent to a port for HTTPS.\n";

/// A handshake that is done; what it found out can be looked at before the connection is used.
pub struct Handshake {
    socket: Socket,
    connection: Box<UnbufferedServerConnection>,
    input: Option<Buf>,
    output: Option<Buf>,
    early: Option<Buf>,
    peer_closed: bool,
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

/// What is to be done next.
enum Next {
    /// Send what is there, then receive.
    Receive,
    Done,
}

impl TlsStream {
    /// Shakes hands within `patience`. `config` must allow secret extraction (`enable_secret_extraction`). Errors: `TimedOut`,
    /// `UnexpectedEof`, the socket's own, or `InvalidData` with the [`rustls::Error`] inside; the client was told.
    pub async fn accept(
        socket: Socket,
        config: Arc<ServerConfig>,
        worker: &Rc<Worker>,
        patience: Duration,
    ) -> io::Result<Handshake> {
        let connection = UnbufferedServerConnection::new(config).map_err(wrong)?;
        let mut handshake = Handshake {
            socket,
            connection: Box::new(connection),
            input: None,
            output: None,
            early: None,
            peer_closed: false,
        };
        let timer = worker.clock.timer();
        timer.arm_for(patience);
        poll_fn(|cx| match handshake.poll(cx) {
            Poll::Pending => {
                if worker.draining() {
                    timer.shorten(NEWCOMER);
                }
                match timer.expired(cx) {
                    true => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                    false => Poll::Pending,
                }
            }
            done => done,
        })
        .await?;
        Ok(handshake)
    }
}

impl Handshake {
    /// What was negotiated, and the client's certificates.
    pub fn connection(&self) -> &CommonState {
        &self.connection
    }

    /// The connection, to be used. What the handshake has still to say (session tickets) goes with the first answer, or
    /// when the connection waits.
    pub fn into_stream(self) -> io::Result<TlsStream> {
        let version = self.connection.protocol_version();
        let version = version.unwrap_or(ProtocolVersion::Unknown(0));
        let (secrets, keys) = self
            .connection
            .dangerous_into_kernel_connection()
            .map_err(wrong)?;
        Ok(TlsStream {
            socket: self.socket,
            input: self.input,
            output: self.output,
            early: self.early,
            receive: Box::new(Protection::new(version, secrets.rx)?),
            send: Box::new(Protection::new(version, secrets.tx)?),
            keys: Box::new(keys),
            busy: false,
            idle_records: 0,
            peer_closed: self.peer_closed,
            said_close: false,
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.advance() {
                Ok(Next::Done) => return Poll::Ready(Ok(())),
                Ok(Next::Receive) => {}
                Err(error) => {
                    self.tell(cx);
                    return Poll::Ready(Err(error));
                }
            }
            ready!(self.poll_send(cx))?;
            if self.input.is_none() {
                ready!(self.socket.poll_readable(cx))?;
            }
            let input = self.input.get_or_insert_with(Buf::small);
            if input.spare().is_empty() {
                input.reserve(4096);
            }
            let read = self.socket.poll_read(cx, input);
            if input.is_empty() {
                self.input = None;
            }
            if ready!(read)? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            let plain = self
                .input
                .as_ref()
                .is_some_and(|input| input.filled().first().is_some_and(u8::is_ascii_uppercase));
            if plain && self.output.is_none() {
                let answer = [IoSlice::new(PLAIN_HTTP)];
                // Whether it arrives is the client's business.
                drop(self.socket.poll_write(cx, &answer));
                let error =
                    rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
                return Poll::Ready(Err(wrong(error)));
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(output) = &mut self.output {
            let count = ready!(self.socket.poll_write(cx, &[IoSlice::new(output.filled())]))?;
            output.consume(count);
            if output.is_empty() {
                self.output = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Lets rustls work on what has come, until it needs more.
    fn advance(&mut self) -> io::Result<Next> {
        loop {
            let mut nothing = [];
            let input = match &mut self.input {
                Some(input) => input.filled_mut(),
                None => &mut nothing[..],
            };
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(input);
            let state = match state {
                Ok(state) => state,
                Err(error) => {
                    self.consume(discard);
                    return Err(wrong(error));
                }
            };
            let next = match state {
                ConnectionState::EncodeTlsData(mut data) => {
                    let output = self.output.get_or_insert_with(Buf::small);
                    loop {
                        match data.encode(output.spare()) {
                            Ok(count) => break output.added(count),
                            Err(EncodeError::InsufficientSize(size)) => {
                                output.reserve(size.required_size);
                            }
                            Err(error) => return Err(io::Error::other(error)),
                        }
                    }
                    None
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    None
                }
                ConnectionState::PeerClosed => {
                    self.peer_closed = true;
                    None
                }
                ConnectionState::BlockedHandshake if !self.peer_closed => Some(Next::Receive),
                ConnectionState::WriteTraffic(_) => Some(Next::Done),
                ConnectionState::ReadTraffic(mut traffic) => {
                    let early = self.early.get_or_insert_with(Buf::small);
                    while let Some(record) = traffic.next_record() {
                        early.put(record.map_err(wrong)?.payload);
                    }
                    None
                }
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            };
            self.consume(discard);
            if let Some(next) = next {
                return Ok(next);
            }
        }
    }

    fn consume(&mut self, count: usize) {
        if let Some(input) = &mut self.input {
            input.consume(count);
            if input.is_empty() {
                self.input = None;
            }
        }
    }

    /// Sends the alert that rustls has for the client, as far as the kernel takes it at once.
    fn tell(&mut self, cx: &mut Context<'_>) {
        let mut nothing = [];
        let input = match &mut self.input {
            Some(input) => input.filled_mut(),
            None => &mut nothing[..],
        };
        let status = self.connection.process_tls_records(input);
        if let Ok(ConnectionState::EncodeTlsData(mut data)) = status.state {
            let output = self.output.get_or_insert_with(Buf::small);
            if let Ok(count) = data.encode(output.spare()) {
                output.added(count);
            }
        }
        // The handshake has failed already.
        drop(self.poll_send(cx));
    }
}

fn wrong(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
