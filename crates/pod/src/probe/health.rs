//! The messages of `grpc.health.v1.Health/Check`, and how gRPC puts a message on a stream. Bytes in, bytes out.
//!
//! Two messages of one field each: a generator and its runtime would be more than what they save.
//! (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>, <https://protobuf.dev/programming-guides/encoding/>)

/// A message is preceded by a flag (compressed) and its length, big-endian. (gRPC over HTTP/2, Length-Prefixed-Message)
const PREFIX_BYTES: usize = 5;
/// The answer is two bytes long; what is far beyond that is not one.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 * 1024;

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

/// `HealthCheckRequest { string service = 1; }`, with its prefix. The empty service is the whole server.
pub(super) fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push((1 << 3) | LENGTH as u8);
        put_varint(service.len() as u64, &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    // A service's name is some bytes of a manifest.
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(&message);
    framed
}

/// What a stream has brought so far, as gRPC reads it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// One whole message.
    Whole(&'a [u8]),
    /// More has to come.
    Partial,
    /// It is compressed, though nobody offered to read that.
    Compressed,
    /// It is this long, which is too long.
    TooLong(u32),
}

/// The first message of a stream's bytes.
pub(super) fn message(bytes: &[u8]) -> Message<'_> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
        return Message::Partial;
    };
    let [flag, length @ ..] = *prefix;
    let length = u32::from_be_bytes(length);
    if flag != 0 {
        return Message::Compressed;
    }
    if length as usize > MESSAGE_BYTES_MAX {
        return Message::TooLong(length);
    }
    match rest.get(..length as usize) {
        Some(message) => Message::Whole(message),
        None => Message::Partial,
    }
}

/// `status` of a `HealthCheckResponse { ServingStatus status = 1; }`, 0 when it isn't there; the last one counts. `None`: no
/// protobuf message.
pub(super) fn status(mut message: &[u8]) -> Option<i32> {
    let mut status = 0;
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        let (field, wire) = (key >> 3, key & 7);
        if field == 0 || field > (1 << 29) - 1 {
            return None;
        }
        let skip = match wire {
            VARINT => {
                let value = take_varint(&mut message)?;
                if field == 1 {
                    // An enum is the low half of its varint. (Protocol buffers, "Bools and Enums")
                    status = value as i32;
                }
                0
            }
            FIXED64 => 8,
            FIXED32 => 4,
            LENGTH => usize::try_from(take_varint(&mut message)?).ok()?,
            // Groups are long gone.
            _ => return None,
        };
        message = message.get(skip..)?;
    }
    Some(status)
}

/// The word of a `ServingStatus`; its number when it has none, as generated code prints it.
pub(super) fn word(status: i32) -> String {
    match status {
        0 => "UNKNOWN".to_owned(),
        SERVING => "SERVING".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => other.to_string(),
    }
}

/// `ServingStatus.SERVING`.
pub(super) const SERVING: i32 = 1;

fn put_varint(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// At most ten bytes of seven bits, the least significant first.
fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        // Of the tenth byte one bit is left.
        if shift == 63 && *byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// `grpc-message` as it was meant: percent-encoded UTF-8; what isn't is kept as it stands. (gRPC over HTTP/2, Status-Message)
pub(super) fn plain_message(encoded: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| byte == b'%');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
