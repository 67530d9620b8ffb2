//! A connection to a port inside the pod, carried over a control connection, as `kubectl port-forward` has it: to the pod's
//! loopback, else to its address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::wire::{Kind, Refusal};
use super::Peer;
use crate::net::PodNet;

const CHUNK: usize = 32 * 1024;

pub(super) async fn forward(port: u16, net: &PodNet, peer: Peer) -> io::Result<()> {
    let Peer {
        mut input,
        mut output,
    } = peer;
    let stream = match dial(port, net).await {
        Ok(stream) => stream,
        Err(error) => {
            let message = format!("connecting to port {port} inside the pod: {error}");
            return output.refuse(&Refusal::new("InternalError", message)).await;
        }
    };
    // Tells the client that there is a connection.
    output.frame(Kind::Json, b"{}").await?;
    let (mut from, mut to) = stream.into_split();
    let inward = async {
        while let Some(frame) = input.next().await? {
            match (frame.kind, frame.bytes.is_empty()) {
                (Kind::Input, false) => to.write_all(&frame.bytes).await?,
                (Kind::Input, true) => to.shutdown().await?,
                _ => {}
            }
        }
        // The client is gone, and with it the connection.
        Err::<(), _>(io::Error::from(io::ErrorKind::UnexpectedEof))
    };
    let outward = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = from.read(&mut buffer).await?;
            output.frame(Kind::Output, &buffer[..count]).await?;
            if count == 0 {
                return Ok::<(), io::Error>(());
            }
        }
    };
    let mut outward = std::pin::pin!(outward);
    let mut inward = std::pin::pin!(inward);
    // It is over when the pod has said all: what a client sends after that has no reader in most protocols, but may have
    // one; it closes the connection when it is done.
    tokio::select! {
        ended = &mut outward => ended?,
        gone = &mut inward => return gone,
    }
    inward.await
}

async fn dial(port: u16, net: &PodNet) -> io::Result<TcpStream> {
    let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    match net.connect(loopback).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let own = IpAddr::V4(net.address());
            net.connect(SocketAddr::new(own, port)).await
        }
        connected => connected,
    }
}
