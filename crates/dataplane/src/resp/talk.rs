//! A conversation with a server, apart from those of clients: questions, their answers, and messages that come by themselves.

use std::future::poll_fn;
use std::io::IoSlice;
use std::time::Duration;

use super::lane::{Greeting, open};
use super::scan::{Replies, put_command};
use crate::net::{Buf, Transport};
use crate::upstream::{Pool, Wire};

/// A connection.
#[derive(Debug)]
pub struct Talk {
    wire: Wire,
    input: Buf,
    scan: Replies,
}

impl Talk {
    /// Opens one, greeted. The error is one line.
    pub async fn open(pool: &Pool, greeting: &Greeting) -> Result<Self, String> {
        Ok(Self {
            wire: open(pool, greeting, None).await?,
            input: Buf::small(),
            scan: Replies::default(),
        })
    }

    /// Sends a command.
    pub async fn say<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Result<(), String> {
        let mut command = Vec::new();
        put_command(&mut command, words);
        let wire = &mut self.wire;
        let mut sent = 0;
        while sent < command.len() {
            let part = [IoSlice::new(&command[sent..])];
            let written = poll_fn(|cx| wire.poll_write(cx, &part)).await;
            sent += written.map_err(|error| error.to_string())?;
        }
        let flushed = poll_fn(|cx| wire.poll_flush(cx)).await;
        flushed.map_err(|error| error.to_string())
    }

    /// The next reply or message.
    pub async fn hear(&mut self) -> Result<Vec<u8>, String> {
        loop {
            if let Some((length, _)) = self.scan.next(self.input.filled())? {
                let reply = self.input.filled()[..length].to_vec();
                self.input.consume(length);
                return Ok(reply);
            }
            self.input.reserve(1);
            let (wire, input) = (&mut self.wire, &mut self.input);
            let read = poll_fn(|cx| wire.poll_read(cx, input)).await;
            if read.map_err(|error| error.to_string())? == 0 {
                return Err("it closed the connection".to_owned());
            }
        }
    }

    /// The reply to a command, which has to come within `patience`. An error reply is an error.
    pub async fn ask<A: AsRef<[u8]>>(
        &mut self,
        words: &[A],
        patience: Duration,
    ) -> Result<Vec<u8>, String> {
        let exchange = async {
            self.say(words).await?;
            self.hear().await
        };
        let reply = tokio::time::timeout(patience, exchange).await;
        let reply =
            reply.unwrap_or_else(|_| Err(format!("no reply for {} ms", patience.as_millis())))?;
        match reply.first() {
            Some(b'-') => Err(String::from_utf8_lossy(&reply[1..]).trim_end().to_owned()),
            _ => Ok(reply),
        }
    }
}
