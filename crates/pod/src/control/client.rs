//! The commands' end of the control socket.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::server::SOCKET;
use super::wire::{self, Frame, Frames, Kind, OUTPUT_MAX, Refusal, Request, Size, VERSION};

/// Why an answer has not come.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens: the supervisor has ended.
    #[error("its supervisor has ended")]
    Gone,
    /// The supervisor does not do it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It speaks another protocol.
    #[error("{0}")]
    Foreign(String),
    /// The connection failed.
    #[error("the connection to its supervisor: {0}")]
    Io(io::Error),
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => Self::Gone,
            _ => Self::Io(error),
        }
    }
}

/// A request that is under way: frames come back.
#[derive(Debug)]
pub struct Reply {
    read: OwnedReadHalf,
    frames: Frames,
    buffer: Box<[u8]>,
    greeted: bool,
    ended: bool,
}

/// What a client sends while a request is under way. The request ends when this is dropped.
#[derive(Debug)]
pub struct Client {
    write: OwnedWriteHalf,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Of a command.
    pub exit_code: Option<i32>,
}

/// A part of an answer.
#[derive(Debug)]
pub enum Part {
    /// A frame of output or an object.
    Frame(Frame),
    /// It is done.
    Ended(Ended),
}

impl Client {
    /// Asks the supervisor whose run directory this is.
    pub async fn ask(run: &Path, request: &Request) -> Result<(Self, Reply), ClientError> {
        let dir = rustix::fs::open(run, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let dir = dir.map_err(io::Error::from)?;
        let path = format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd());
        let stream = UnixStream::connect(path).await?;
        let (read, write) = stream.into_split();
        let mut client = Self { write };
        client.write.write_all(&request.line()).await?;
        let reply = Reply {
            read,
            frames: Frames::new(OUTPUT_MAX),
            buffer: vec![0; 32 * 1024].into_boxed_slice(),
            greeted: false,
            ended: false,
        };
        Ok((client, reply))
    }

    /// Sends bytes of standard input; none: its end.
    pub async fn input(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        for chunk in bytes.chunks(wire::INPUT_MAX) {
            self.write
                .write_all(&wire::frame(Kind::Input, chunk))
                .await?;
        }
        if bytes.is_empty() {
            self.write.write_all(&wire::frame(Kind::Input, b"")).await?;
        }
        Ok(())
    }

    /// The terminal has another size.
    pub async fn resize(&mut self, size: Size) -> Result<(), ClientError> {
        let json = serde_json::json!(size).to_string();
        let frame = wire::frame(Kind::Resize, json.as_bytes());
        Ok(self.write.write_all(&frame).await?)
    }
}

impl Reply {
    /// The next part. Can be dropped and called again. After the end the supervisor has nothing more to say: `Gone`.
    pub async fn next(&mut self) -> Result<Part, ClientError> {
        loop {
            let frame = self.frames.next();
            let frame = frame.map_err(|error| ClientError::Foreign(error.to_string()))?;
            let Some(frame) = frame else {
                let count = self.read.read(&mut self.buffer).await?;
                if count == 0 {
                    return Err(ClientError::Gone);
                }
                self.frames.feed(&self.buffer[..count]);
                continue;
            };
            if !self.greeted {
                greet(&frame)?;
                self.greeted = true;
                continue;
            }
            if frame.kind != Kind::End {
                return Ok(Part::Frame(frame));
            }
            self.ended = true;
            return end(&frame.bytes).map(Part::Ended);
        }
    }

    /// The next object; none at the end.
    pub async fn object(&mut self) -> Result<Option<Value>, ClientError> {
        loop {
            match self.next().await? {
                Part::Ended(_) => return Ok(None),
                Part::Frame(frame) if frame.kind == Kind::Json => {
                    let object = serde_json::from_slice(&frame.bytes);
                    return object
                        .map(Some)
                        .map_err(|error| ClientError::Foreign(format!("not an object: {error}")));
                }
                Part::Frame(_) => {}
            }
        }
    }

    /// Waits for the end.
    pub async fn done(&mut self) -> Result<Ended, ClientError> {
        loop {
            if let Part::Ended(ended) = self.next().await? {
                return Ok(ended);
            }
        }
    }
}

/// The first frame says who answers.
fn greet(frame: &Frame) -> Result<(), ClientError> {
    let hello: Value = match frame.kind {
        Kind::Hello => serde_json::from_slice(&frame.bytes).unwrap_or_default(),
        _ => Value::Null,
    };
    let Some(theirs) = hello["podkit"].as_u64() else {
        let what = "what answers is not a supervisor of podkit";
        return Err(ClientError::Foreign(what.to_owned()));
    };
    if theirs > u64::from(VERSION) {
        let version = hello["version"].as_str().unwrap_or("a later version");
        return Err(ClientError::Foreign(format!(
            "it was started by podkit {version}, whose control protocol is {theirs}, and this podkit {} speaks {VERSION}: \
             use the newer one",
            podkit_foundation::VERSION
        )));
    }
    Ok(())
}

fn end(bytes: &[u8]) -> Result<Ended, ClientError> {
    let end: Value = serde_json::from_slice(bytes)
        .map_err(|error| ClientError::Foreign(format!("not an end: {error}")))?;
    if let Some(error) = end.get("error") {
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        let (reason, message) = (text("reason"), text("message"));
        return Err(Refusal { reason, message }.into());
    }
    let code = end["exitCode"]
        .as_i64()
        .and_then(|code| i32::try_from(code).ok());
    Ok(Ended { exit_code: code })
}
