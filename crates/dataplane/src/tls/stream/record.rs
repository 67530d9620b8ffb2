//! The protection of records: TLS 1.3 (RFC 8446 section 5) and TLS 1.2 with AEAD suites (RFC 5246, 5288, 7905). No I/O.

use std::io::{self, IoSlice};

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::{AlertDescription, ConnectionTrafficSecrets, ProtocolVersion};

use crate::net::Buf;

/// Bytes of data in a record at most.
pub(super) const MAX_PLAIN_BYTES: usize = 16 * 1024;
/// Bytes that protection adds to a record at most: header, explicit nonce, content type, tag.
pub(super) const MAX_OVERHEAD_BYTES: usize = HEADER_BYTES + EXPLICIT_NONCE_BYTES + 1 + TAG_BYTES;
/// Bytes of a record that a peer may send at most (TLS 1.2 allows the most).
const MAX_RECORD_BYTES: usize = HEADER_BYTES + MAX_PLAIN_BYTES + 2048;

/// Bytes before a record's body: content type, version, length.
pub(super) const HEADER_BYTES: usize = 5;
const EXPLICIT_NONCE_BYTES: usize = 8;
const TAG_BYTES: usize = 16;

/// Bytes before a handshake message's body: its kind and its length.
const MESSAGE_HEADER_BYTES: usize = 4;

/// What a server's ticket for a later session is (RFC 8446 section 4.6.1).
pub(super) const NEW_SESSION_TICKET: u8 = 4;

/// The kind and the body of the handshake message at the start of `bytes`, and what follows it. None when it is not whole.
pub(super) fn split_message(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([kind, a, b, c], rest) = bytes.split_first_chunk::<MESSAGE_HEADER_BYTES>()?;
    let len = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
    let (body, after) = rest.split_at_checked(len)?;
    Some((*kind, body, after))
}

/// A KeyUpdate that asks for none in return.
pub(super) const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// Records under one key after which it is changed: AES-GCM is worn at 2^24.5 (RFC 8446 section 5.5).
const WORN_AFTER_RECORDS: u64 = 1 << 24;

/// What a record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Alert = 21,
    Handshake = 22,
    Data = 23,
}

impl Content {
    fn of(byte: u8) -> Result<Self, Alert> {
        match byte {
            21 => Ok(Self::Alert),
            22 => Ok(Self::Handshake),
            23 => Ok(Self::Data),
            _ => Err(Alert::UNEXPECTED_MESSAGE),
        }
    }
}

/// What a peer is told, or tells (RFC 8446 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alert(u8);

impl Alert {
    pub(super) const CLOSE_NOTIFY: Self = Self(0);
    pub(super) const UNEXPECTED_MESSAGE: Self = Self(10);
    pub(super) const BAD_RECORD_MAC: Self = Self(20);
    pub(super) const RECORD_OVERFLOW: Self = Self(22);
    pub(super) const DECODE_ERROR: Self = Self(50);
    pub(super) const USER_CANCELED: Self = Self(90);
    /// The refusal of a renegotiation.
    pub(super) const NO_RENEGOTIATION: Self = Self(100);

    pub(super) fn message(self) -> [u8; 2] {
        let level = if self == Self::CLOSE_NOTIFY { 1 } else { 2 };
        [level, self.0]
    }
}

/// The error for what we tell the peer.
pub(super) fn failed(alert: Alert) -> io::Error {
    let what = AlertDescription::from(alert.0);
    io::Error::new(io::ErrorKind::InvalidData, format!("TLS: {what:?}"))
}

/// The error for what the peer told us.
pub(super) fn alerted(alert: Alert) -> io::Error {
    let what = AlertDescription::from(alert.0);
    io::Error::new(
        io::ErrorKind::ConnectionAborted,
        rustls::Error::AlertReceived(what),
    )
}

/// An alert's description.
pub(super) fn read_alert(message: &[u8]) -> Result<Alert, Alert> {
    match message {
        [1 | 2, description] => Ok(Alert(*description)),
        _ => Err(Alert::DECODE_ERROR),
    }
}

/// The length of the record at the start of `bytes` as its header says, its header included; 0 when that is not there.
pub(super) fn announced(bytes: &[u8]) -> usize {
    match bytes {
        [_, _, _, high, low, ..] => HEADER_BYTES + usize::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    }
}

/// The length of the record at the start of `bytes` when all of it is there.
pub(super) fn whole(bytes: &[u8]) -> Result<Option<usize>, Alert> {
    let len = announced(bytes);
    if len > MAX_RECORD_BYTES {
        return Err(Alert::RECORD_OVERFLOW);
    }
    if bytes.get(1).is_some_and(|major| *major != 3) {
        return Err(Alert::DECODE_ERROR);
    }
    Ok((len > 0 && bytes.len() >= len).then_some(len))
}

/// A record that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) content: Content,
    pub(super) len: usize,
}

/// How nonce and additional data are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tls13,
    /// The nonce's last eight bytes are sent with each record.
    Tls12Gcm,
    Tls12ChaCha,
}

/// One direction of a connection.
pub(super) struct Protection {
    kind: Kind,
    key: LessSafeKey,
    iv: [u8; 12],
    /// Records so far under this key.
    sequence: u64,
}

impl Protection {
    pub(super) fn new(
        version: ProtocolVersion,
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
    ) -> io::Result<Self> {
        let chacha = matches!(secrets, ConnectionTrafficSecrets::Chacha20Poly1305 { .. });
        let kind = match (version, chacha) {
            (ProtocolVersion::TLSv1_3, _) => Kind::Tls13,
            (ProtocolVersion::TLSv1_2, true) => Kind::Tls12ChaCha,
            (ProtocolVersion::TLSv1_2, false) => Kind::Tls12Gcm,
            _ => return Err(io::Error::other("an unknown version of TLS")),
        };
        let (key, iv) = unpack(secrets)?;
        Ok(Self {
            kind,
            key,
            iv,
            sequence,
        })
    }

    /// Goes on with another key.
    pub(super) fn replace(&mut self, secrets: ConnectionTrafficSecrets) -> io::Result<()> {
        (self.key, self.iv) = unpack(secrets)?;
        self.sequence = 0;
        Ok(())
    }

    /// The key has protected as much as it should.
    pub(super) fn is_worn(&self) -> bool {
        self.kind == Kind::Tls13 && self.sequence >= WORN_AFTER_RECORDS
    }

    fn nonce(&self) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, count) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= count;
        }
        nonce
    }

    fn count(&mut self) -> io::Result<()> {
        self.sequence += 1;
        // TLS 1.2 has no way to change keys but a new handshake.
        match self.kind != Kind::Tls13 && self.sequence >= WORN_AFTER_RECORDS {
            true => Err(io::Error::other(
                "a TLS 1.2 connection has protected as much as its key allows",
            )),
            false => Ok(()),
        }
    }

    /// Appends a record with the `len` bytes of `parts` from `from` on to `out`, which has room for it.
    pub(super) fn seal(
        &mut self,
        content: Content,
        parts: &[IoSlice<'_>],
        from: usize,
        len: usize,
        out: &mut Buf,
    ) -> io::Result<()> {
        let nonce = self.nonce();
        let explicit: &[u8] = match self.kind {
            Kind::Tls12Gcm => &nonce[4..],
            Kind::Tls13 | Kind::Tls12ChaCha => &[],
        };
        let inner: &[u8] = match self.kind {
            Kind::Tls13 => &[content as u8],
            Kind::Tls12Gcm | Kind::Tls12ChaCha => &[],
        };
        let outer = match self.kind {
            Kind::Tls13 => Content::Data,
            Kind::Tls12Gcm | Kind::Tls12ChaCha => content,
        };
        let body = explicit.len() + len + inner.len() + TAG_BYTES;
        let header = header(outer as u8, body);
        let aad = self.additional(content as u8, header, len);
        out.put(&header);
        out.put(explicit);
        let (text, tail) = out.spare()[..len + inner.len() + TAG_BYTES].split_at_mut(len);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = match contiguous(parts, from, len) {
            Some(plain) => self
                .key
                .seal_out_of_place_scatter(nonce, aad, plain, text, inner, tail),
            None => {
                gather(parts, from, text);
                self.key
                    .seal_in_place_scatter(nonce, aad, text, inner, tail)
            }
        };
        sealed.map_err(|_| io::Error::other("a TLS record can't be sealed"))?;
        out.added(len + inner.len() + TAG_BYTES);
        self.count()
    }

    /// Opens `record`, header included, into `out`, which is at least as long.
    pub(super) fn open(&mut self, record: &[u8], out: &mut [u8]) -> Result<Opened, Alert> {
        let (header, body) = record.split_at(HEADER_BYTES);
        let mut nonce = self.nonce();
        let body = match self.kind {
            Kind::Tls12Gcm => {
                let (explicit, body) = body
                    .split_at_checked(EXPLICIT_NONCE_BYTES)
                    .ok_or(Alert::BAD_RECORD_MAC)?;
                nonce[..4].copy_from_slice(&self.iv[..4]);
                nonce[4..].copy_from_slice(explicit);
                body
            }
            Kind::Tls13 | Kind::Tls12ChaCha => body,
        };
        let len = body
            .len()
            .checked_sub(TAG_BYTES)
            .ok_or(Alert::BAD_RECORD_MAC)?;
        let (text, tag) = body.split_at(len);
        let header: [u8; HEADER_BYTES] = header.try_into().map_err(|_| Alert::DECODE_ERROR)?;
        let aad = self.additional(header[0], header, len);
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key
            .open_separate_gather(nonce, aad, text, tag, &mut out[..len])
            .map_err(|_| Alert::BAD_RECORD_MAC)?;
        self.sequence += 1;
        let opened = match self.kind {
            Kind::Tls12Gcm | Kind::Tls12ChaCha => Opened {
                content: Content::of(header[0])?,
                len,
            },
            Kind::Tls13 if header[0] == Content::Data as u8 => {
                // The content type is the last byte that is not padding.
                let last = out[..len].iter().rposition(|byte| *byte != 0);
                let last = last.ok_or(Alert::UNEXPECTED_MESSAGE)?;
                Opened {
                    content: Content::of(out[last])?,
                    len: last,
                }
            }
            Kind::Tls13 => return Err(Alert::UNEXPECTED_MESSAGE),
        };
        match opened.len > MAX_PLAIN_BYTES {
            true => Err(Alert::RECORD_OVERFLOW),
            false => Ok(opened),
        }
    }

    fn additional(&self, content: u8, header: [u8; HEADER_BYTES], len: usize) -> Aad<Additional> {
        let mut bytes = [0; 13];
        match self.kind {
            Kind::Tls13 => {
                bytes[..HEADER_BYTES].copy_from_slice(&header);
                Aad::from(Additional {
                    bytes,
                    len: HEADER_BYTES,
                })
            }
            Kind::Tls12Gcm | Kind::Tls12ChaCha => {
                bytes[..8].copy_from_slice(&self.sequence.to_be_bytes());
                bytes[8..].copy_from_slice(&[content, 3, 3, 0, 0]);
                let len = u16::try_from(len).expect("a record's length was checked");
                bytes[11..].copy_from_slice(&len.to_be_bytes());
                Aad::from(Additional { bytes, len: 13 })
            }
        }
    }

    /// A handshake message on an open connection: a KeyUpdate, or nothing we take. Returns whether an answer is wanted.
    pub(super) fn read_key_update(&self, message: &[u8]) -> Result<bool, Alert> {
        match (self.kind, message) {
            (Kind::Tls13, [24, 0, 0, 1, wanted @ (0 | 1)]) => Ok(*wanted == 1),
            (Kind::Tls13, _) => Err(Alert::UNEXPECTED_MESSAGE),
            (Kind::Tls12Gcm | Kind::Tls12ChaCha, _) => Err(Alert::NO_RENEGOTIATION),
        }
    }
}

struct Additional {
    bytes: [u8; 13],
    len: usize,
}

impl AsRef<[u8]> for Additional {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn header(content: u8, body: usize) -> [u8; HEADER_BYTES] {
    let [high, low] = u16::try_from(body)
        .expect("a record is shorter than 64 KiB")
        .to_be_bytes();
    [content, 3, 3, high, low]
}

/// The `len` bytes from `from` on when they lie in one part.
fn contiguous<'a>(parts: &'a [IoSlice<'_>], mut from: usize, len: usize) -> Option<&'a [u8]> {
    for part in parts {
        if from < part.len() {
            return part.get(from..from + len);
        }
        from -= part.len();
    }
    (len == 0).then_some(&[])
}

/// Copies the bytes from `from` on into `out`, until it is full.
fn gather(parts: &[IoSlice<'_>], mut from: usize, out: &mut [u8]) {
    let mut at = 0;
    for part in parts {
        if from >= part.len() {
            from -= part.len();
            continue;
        }
        let count = (part.len() - from).min(out.len() - at);
        out[at..at + count].copy_from_slice(&part[from..from + count]);
        at += count;
        from = 0;
    }
}

fn unpack(secrets: ConnectionTrafficSecrets) -> io::Result<(LessSafeKey, [u8; 12])> {
    let (algorithm, key, iv): (&'static Algorithm, _, _) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
        _ => return Err(io::Error::other("an unknown TLS cipher suite")),
    };
    let key = UnboundKey::new(algorithm, key.as_ref())
        .map_err(|_| io::Error::other("a TLS key of the wrong length"))?;
    let iv = iv
        .as_ref()
        .try_into()
        .map_err(|_| io::Error::other("a TLS nonce of the wrong length"))?;
    Ok((LessSafeKey::new(key), iv))
}
