//! HPACK (RFC 7541), on slices (no I/O). Written here because no library that is kept up works on them: those there are make a map
//! of owned strings, which is then written once more as a head of HTTP/1.1.

mod decode;
mod encode;
mod huffman;
mod table;

pub(super) use decode::Decoder;
pub(super) use encode::Encoder;

/// Bytes of a dynamic table: what both sides begin with.
const TABLE_BYTES: usize = 4096;

#[cfg(test)]
mod tests;
