//! What replicas say to each other: frames of one size, proved to come from who knows the secret. docs/limit-peers.md is the
//! description.
//!
//! Both sides send a nonce and prove by an HMAC over both that they know the secret; each proof and each direction's key has a label
//! of its own, so nothing can be sent back or played again. Every frame carries an HMAC-SHA-256 (RFC 2104) under the key of
//! its direction and this connection, over its number and its bytes. Nothing is secret in them: a tag is a keyed hash.

use std::io;

use aws_lc_rs::hmac;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, ReadHalf, WriteHalf,
};

/// Begins both hellos; the last byte is the version.
const MAGIC: &[u8; 8] = b"podkit\x001";
const NONCE: usize = 32;
const MAC: usize = 32;
const NUMBERS: usize = 5;
const BODY: usize = NUMBERS * 8;
/// Bytes of a frame.
pub(super) const FRAME: usize = BODY + MAC;

/// An ask: so many units for a key, of its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) tag: u64,
    /// Nanoseconds that pay for one unit, and units at once: the rule's.
    pub(super) interval: u64,
    pub(super) burst: u64,
    /// Units that one request takes.
    pub(super) cost: u64,
    /// Units that are wanted, if there are so many: at least the cost.
    pub(super) wanted: u64,
}

/// What the owner says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// Units, a multiple of the cost; 0: refused.
    pub(super) granted: u64,
    pub(super) remaining: u64,
    /// Nanoseconds, as [`Outcome`](super::super::gcra::Outcome) has them.
    pub(super) full_after: u64,
    pub(super) more_after: u64,
    pub(super) retry_after: u64,
}

/// What fits into a frame.
pub(super) trait Message: Sized {
    fn numbers(&self) -> [u64; NUMBERS];
    fn of(numbers: [u64; NUMBERS]) -> Self;
}

impl Message for Ask {
    fn numbers(&self) -> [u64; NUMBERS] {
        [self.tag, self.interval, self.burst, self.cost, self.wanted]
    }

    fn of([tag, interval, burst, cost, wanted]: [u64; NUMBERS]) -> Self {
        Self {
            tag,
            interval,
            burst,
            cost,
            wanted,
        }
    }
}

impl Message for Answer {
    fn numbers(&self) -> [u64; NUMBERS] {
        [
            self.granted,
            self.remaining,
            self.full_after,
            self.more_after,
            self.retry_after,
        ]
    }

    fn of([granted, remaining, full_after, more_after, retry_after]: [u64; NUMBERS]) -> Self {
        Self {
            granted,
            remaining,
            full_after,
            more_after,
            retry_after,
        }
    }
}

/// The secret that all replicas share.
#[derive(Debug, Clone)]
pub(super) struct Secret(hmac::Key);

impl Secret {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// A key for one purpose.
    pub(super) fn derive(&self, label: &str, nonces: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(label.as_bytes());
        context.update(&[0]);
        context.update(nonces);
        context.sign()
    }

    fn key(&self, label: &str, nonces: &[u8]) -> Seal {
        let key = self.derive(label, nonces);
        Seal {
            key: hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()),
            number: 0,
        }
    }

    fn proves(&self, label: &str, nonces: &[u8], proof: &[u8]) -> io::Result<()> {
        let expected = self.derive(label, nonces);
        aws_lc_rs::constant_time::verify_slices_are_equal(expected.as_ref(), proof)
            .map_err(|_| refused("the peer does not know the secret of --peers-secret-file"))
    }
}

/// One direction of a connection.
struct Seal {
    key: hmac::Key,
    /// Frames so far.
    number: u64,
}

impl Seal {
    fn input(&mut self, body: &[u8]) -> [u8; 8 + BODY] {
        let mut input = [0; 8 + BODY];
        input[..8].copy_from_slice(&self.number.to_be_bytes());
        input[8..].copy_from_slice(body);
        self.number += 1;
        input
    }

    fn seal(&mut self, message: &impl Message, out: &mut Vec<u8>) {
        let begin = out.len();
        for number in message.numbers() {
            out.extend(number.to_be_bytes());
        }
        let input = self.input(&out[begin..]);
        out.extend(hmac::sign(&self.key, &input).as_ref());
    }

    fn open<M: Message>(&mut self, frame: &[u8; FRAME]) -> io::Result<M> {
        let (body, mac) = frame.split_at(BODY);
        let input = self.input(body);
        hmac::verify(&self.key, &input, mac)
            .map_err(|_| refused("a frame is not the next one of this connection"))?;
        let mut numbers = [0; NUMBERS];
        for (number, bytes) in numbers.iter_mut().zip(body.chunks_exact(8)) {
            *number = bytes
                .iter()
                .fold(0, |all, byte| all << 8 | u64::from(*byte));
        }
        Ok(M::of(numbers))
    }
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Carries bytes both ways.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// Frames that come. Dropping [`Reader::next`] before its end loses nothing.
pub(super) struct Reader<S> {
    from: BufReader<ReadHalf<S>>,
    seal: Seal,
    frame: [u8; FRAME],
    filled: usize,
}

impl<S: Stream> Reader<S> {
    /// The next frame; None when the peer has closed between two.
    pub(super) async fn next<M: Message>(&mut self) -> io::Result<Option<M>> {
        while self.filled < FRAME {
            match self.from.read(&mut self.frame[self.filled..]).await? {
                0 if self.filled == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.filled += count,
            }
        }
        self.filled = 0;
        self.seal.open(&self.frame).map(Some)
    }

    /// Bytes that have come and are not taken.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.filled + self.from.buffer().len()
    }

    /// A whole frame is here already.
    pub(super) fn has_more(&self) -> bool {
        self.filled + self.from.buffer().len() >= FRAME
    }
}

/// Frames that go.
pub(super) struct Writer<S> {
    to: WriteHalf<S>,
    seal: Seal,
    out: Vec<u8>,
}

impl<S: Stream> Writer<S> {
    /// Puts a frame among those that [`Writer::flush`] sends.
    pub(super) fn put(&mut self, message: &impl Message) {
        self.seal.seal(message, &mut self.out);
    }

    /// Frames that were put and not sent.
    pub(super) fn waiting(&self) -> usize {
        self.out.len() / FRAME
    }

    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.to.write_all(&self.out).await?;
        self.out.clear();
        self.to.flush().await
    }
}

/// Which end of a connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It asks.
    Asker,
    /// It answers.
    Owner,
}

const PROOF: [&str; 2] = ["limit peers: asker's proof", "limit peers: owner's proof"];
const KEY: [&str; 2] = ["limit peers: asks", "limit peers: answers"];

/// Both directions of a connection whose ends have proved that they know `secret`. Has no deadline of its own.
pub(super) async fn shake<S: Stream>(
    mut stream: S,
    secret: &Secret,
    role: Role,
) -> io::Result<(Reader<S>, Writer<S>)> {
    let mut mine = [0; MAGIC.len() + NONCE];
    mine[..MAGIC.len()].copy_from_slice(MAGIC);
    aws_lc_rs::rand::fill(&mut mine[MAGIC.len()..])
        .map_err(|_| io::Error::other("the system gives no random bytes"))?;
    stream.write_all(&mine).await?;
    stream.flush().await?;
    let mut theirs = [0; MAGIC.len() + NONCE];
    stream.read_exact(&mut theirs).await?;
    if theirs[..MAGIC.len()] != *MAGIC {
        return Err(refused(
            "the peer does not speak version 1 of limit's protocol",
        ));
    }
    let nonces = match role {
        Role::Asker => [mine, theirs].concat(),
        Role::Owner => [theirs, mine].concat(),
    };
    let (me, them) = match role {
        Role::Asker => (0, 1),
        Role::Owner => (1, 0),
    };
    let mut proof = [0; MAC];
    // Who asks proves itself first, so that a stranger who comes gets nothing.
    if role == Role::Owner {
        stream.read_exact(&mut proof).await?;
        secret.proves(PROOF[them], &nonces, &proof)?;
    }
    let own = secret.derive(PROOF[me], &nonces);
    stream.write_all(own.as_ref()).await?;
    stream.flush().await?;
    if role == Role::Asker {
        stream.read_exact(&mut proof).await?;
        secret.proves(PROOF[them], &nonces, &proof)?;
    }
    let (read, write) = tokio::io::split(stream);
    let reader = Reader {
        from: BufReader::with_capacity(64 * FRAME, read),
        seal: secret.key(KEY[them], &nonces),
        frame: [0; FRAME],
        filled: 0,
    };
    let writer = Writer {
        to: write,
        seal: secret.key(KEY[me], &nonces),
        out: Vec::new(),
    };
    Ok((reader, writer))
}
