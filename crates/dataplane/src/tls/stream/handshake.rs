//! The handshake, by rustls, of a server and of a client.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, ExtractedSecrets, ProtocolVersion, ServerConfig};

use super::keys::Keys;
use super::record::Protection;
use super::{Buf, Socket, TlsStream, Transport};
use crate::net::{NEWCOMER, Worker};

/// For a client that speaks plain HTTP to us.
const PLAIN_HTTP: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 41\r\nConnection: close\r\n\r\nplain HTTP was sent to a port for HTTPS.\n";

/// Which side of a handshake we are.
pub trait Side: std::ops::Deref<Target: std::ops::Deref<Target = CommonState>> {
    /// What rustls keeps for it.
    type Data;
    /// The peer may be a client that speaks plain HTTP to us.
    const SERVES: bool;
    /// Works on what came.
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    /// The secrets of the open connection, and what makes the next ones.
    fn into_keys(self) -> Result<(ExtractedSecrets, Keys), rustls::Error>;
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    const SERVES: bool = true;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn into_keys(self) -> Result<(ExtractedSecrets, Keys), rustls::Error> {
        let (secrets, keys) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Keys::Server(keys)))
    }
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    const SERVES: bool = false;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn into_keys(self) -> Result<(ExtractedSecrets, Keys), rustls::Error> {
        let (secrets, keys) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Keys::Client(keys)))
    }
}

/// A handshake that is done; what it found out can be looked at before the connection is used.
pub struct Handshake<S = UnbufferedServerConnection> {
    socket: Socket,
    connection: Box<S>,
    input: Option<Buf>,
    output: Option<Buf>,
    early: Option<Buf>,
    peer_closed: bool,
}

impl<S> std::fmt::Debug for Handshake<S> {
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
        let mut handshake = Handshake::new(socket, connection);
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

    /// Shakes hands with the server that `name` is to be the name of; how long that may take is for the caller to say. Errors as
    /// with [`TlsStream::accept`].
    pub async fn connect(
        socket: Socket,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Handshake<UnbufferedClientConnection>> {
        let connection = UnbufferedClientConnection::new(config, name).map_err(wrong)?;
        let mut handshake = Handshake::new(socket, connection);
        poll_fn(|cx| handshake.poll(cx)).await?;
        Ok(handshake)
    }
}

impl<S: Side> Handshake<S> {
    fn new(socket: Socket, connection: S) -> Self {
        Self {
            socket,
            connection: Box::new(connection),
            input: None,
            output: None,
            early: None,
            peer_closed: false,
        }
    }

    /// What was negotiated, and the peer's certificates.
    pub fn connection(&self) -> &CommonState {
        &self.connection
    }

    /// The connection, to be used. What the handshake has still to say (session tickets) goes with the first answer, or
    /// when the connection waits.
    pub fn into_stream(self) -> io::Result<TlsStream> {
        let version = self.connection.protocol_version();
        let version = version.unwrap_or(ProtocolVersion::Unknown(0));
        let (secrets, keys) = self.connection.into_keys().map_err(wrong)?;
        Ok(TlsStream {
            socket: self.socket,
            input: self.input,
            output: self.output,
            early: self.early,
            receive: Box::new(Protection::new(version, secrets.rx)?),
            send: Box::new(Protection::new(version, secrets.tx)?),
            keys: Box::new(keys),
            message: Vec::new(),
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
            let plain = S::SERVES
                && self.input.as_ref().is_some_and(|input| {
                    input.filled().first().is_some_and(u8::is_ascii_uppercase)
                });
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
            let UnbufferedStatus { discard, state } = self.connection.process(input);
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
        let status = self.connection.process(input);
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
