//! An entry of a pack: its header, and the zlib stream behind it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt as _;

use flate2::{Decompress, FlushDecompress, Status};
use gix_hash::ObjectId;
use gix_object::Kind;

use super::bad;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// An object.
    Whole(Kind),
    /// A delta on the entry so many bytes before it.
    Behind(u64),
    /// A delta on an object.
    On(ObjectId),
}

/// An entry's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) form: Form,
    /// Of what the zlib stream holds, in bytes.
    pub(super) size: u64,
}

impl Entry {
    pub(super) fn read(from: &mut dyn Read) -> io::Result<Self> {
        let mut next = || {
            let mut byte = [0];
            from.read_exact(&mut byte).map(|()| byte[0])
        };
        let mut byte = next()?;
        let number = (byte >> 4) & 7;
        let mut size = u64::from(byte & 15);
        let mut shift = 4;
        while byte & 0x80 != 0 {
            byte = next()?;
            if shift > 56 {
                return Err(bad("an entry of a pack has no size"));
            }
            size |= u64::from(byte & 0x7f) << shift;
            shift += 7;
        }
        let form = match number {
            1 => Form::Whole(Kind::Commit),
            2 => Form::Whole(Kind::Tree),
            3 => Form::Whole(Kind::Blob),
            4 => Form::Whole(Kind::Tag),
            6 => {
                let mut byte = next()?;
                let mut distance = u64::from(byte & 0x7f);
                while byte & 0x80 != 0 {
                    byte = next()?;
                    if distance >= 1 << 56 {
                        return Err(bad("a delta builds on what is before the pack"));
                    }
                    distance = ((distance + 1) << 7) | u64::from(byte & 0x7f);
                }
                Form::Behind(distance)
            }
            7 => {
                let mut id = [0; 20];
                from.read_exact(&mut id)?;
                Form::On(ObjectId::Sha1(id))
            }
            other => return Err(bad(format!("a pack has an entry of type {other}"))),
        };
        Ok(Self { form, size })
    }
}

/// Reads a file from an offset on, without moving its cursor.
#[derive(Debug)]
pub(super) struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl<'a> At<'a> {
    pub(super) fn new(file: &'a File, offset: u64) -> BufReader<Self> {
        BufReader::with_capacity(16 << 10, Self { file, offset })
    }

    /// The offset of the byte that is read next.
    pub(super) fn offset(reader: &BufReader<Self>) -> u64 {
        reader.get_ref().offset - reader.buffer().len() as u64
    }
}

impl Read for At<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(out, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// A zlib stream's inflated bytes; not a byte behind it is read. It is at its end only once a read returned 0.
pub(super) struct Inflate<'a, R> {
    from: R,
    state: &'a mut Decompress,
    ended: bool,
}

impl<'a, R: BufRead> Inflate<'a, R> {
    /// `state` is large, and so used again.
    pub(super) fn new(from: R, state: &'a mut Decompress) -> Self {
        state.reset(true);
        Self {
            from,
            state,
            ended: false,
        }
    }

    /// Passes everything on; an error when it isn't as long as it should be.
    pub(super) fn pass(mut self, size: u64, out: &mut dyn io::Write) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        let mut passed = 0;
        loop {
            let count = self.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            passed += count as u64;
            if passed > size {
                break;
            }
            out.write_all(&buffer[..count])?;
        }
        match passed == size {
            true => Ok(()),
            false => Err(bad(format!("an object of {size} bytes has another length"))),
        }
    }
}

impl<R: BufRead> Read for Inflate<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.ended && !out.is_empty() {
            let input = self.from.fill_buf()?;
            if input.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let before = (self.state.total_in(), self.state.total_out());
            let status = self.state.decompress(input, out, FlushDecompress::None);
            let status = status.map_err(|error| bad(format!("a compressed object: {error}")))?;
            let used = self.state.total_in() - before.0;
            let made = (self.state.total_out() - before.1) as usize;
            self.from.consume(used as usize);
            self.ended = status == Status::StreamEnd;
            if made > 0 {
                return Ok(made);
            }
            if used == 0 && !self.ended {
                return Err(bad("a compressed object does not go on"));
            }
        }
        Ok(0)
    }
}
