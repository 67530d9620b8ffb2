//! What a layer is packed with, by its first bytes. Media types were rejected as the source: registries have layers whose type
//! lies, and every engine looks at the bytes.

use std::io::{self, BufRead, BufReader, Read};

/// A layer's bytes are read in pieces of this size.
const PIECE: usize = 64 * 1024;

/// How bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By the first bytes; four are enough. Refuses what other tools pack with.
    pub(in crate::image) fn of(start: &[u8]) -> io::Result<Self> {
        let other = match start {
            [0x1f, 0x8b, ..] => return Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => return Ok(Self::Zstd),
            // A skippable frame, with which zstd:chunked begins.
            [first, 0x2a, 0x4d, 0x18, ..] if first & 0xf0 == 0x50 => return Ok(Self::Zstd),
            [b'B', b'Z', b'h', ..] => "bzip2",
            [0xfd, b'7', b'z', b'X', ..] => "xz",
            _ => return Ok(Self::None),
        };
        let why = format!("packed with {other}; gzip, zstd and plain tar are read");
        Err(io::Error::new(io::ErrorKind::Unsupported, why))
    }
}

/// Unpacks what `source` gives: several gzip members or zstd frames are one stream, as eStargz and zstd:chunked have it.
pub(in crate::image) fn unpacked<'a>(source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut source = BufReader::with_capacity(PIECE, source);
    // A pipe may give fewer bytes at first than the magic has.
    let mut start = [0; 4];
    let mut filled = 0;
    while filled < start.len() {
        match source.fill_buf() {
            Ok([]) => break,
            Ok(bytes) => {
                let taken = bytes.len().min(start.len() - filled);
                start[filled..filled + taken].copy_from_slice(&bytes[..taken]);
                source.consume(taken);
                filled += taken;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let compression = Compression::of(&start[..filled])?;
    let source = io::Cursor::new(start).take(filled as u64).chain(source);
    Ok(match compression {
        Compression::None => Box::new(source),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(source)?),
    })
}
