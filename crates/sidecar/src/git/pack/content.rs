//! An object that others are made of, and how a delta makes one of it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufWriter, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::bad;

/// A larger one is held in a file.
pub(super) const MEMORY_BYTES_MAX: u64 = 4 << 20;

/// The bytes of an object.
#[derive(Debug)]
pub(super) enum Content {
    Memory(Vec<u8>),
    File(File, u64),
}

impl Content {
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(_, length) => *length,
        }
    }

    /// What it holds in memory, in bytes.
    pub(super) fn held(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(..) => 0,
        }
    }

    /// Passes a part of it on.
    fn pass(&self, from: u64, count: u64, out: &mut dyn Write) -> io::Result<()> {
        if from
            .checked_add(count)
            .is_none_or(|end| end > self.length())
        {
            return Err(bad("a delta copies what is not there"));
        }
        match self {
            Self::Memory(bytes) => out.write_all(&bytes[from as usize..(from + count) as usize]),
            Self::File(file, _) => {
                let mut buffer = [0; 16 << 10];
                let (mut from, mut left) = (from, count);
                while left > 0 {
                    let part = &mut buffer[..left.min(16 << 10) as usize];
                    file.read_exact_at(part, from)?;
                    out.write_all(part)?;
                    from += part.len() as u64;
                    left -= part.len() as u64;
                }
                Ok(())
            }
        }
    }
}

/// An object that is being written.
#[derive(Debug)]
pub(super) enum Filling {
    Memory(Vec<u8>),
    File(BufWriter<File>, u64),
}

impl Filling {
    /// `memory`: it may be held there; else in a file of the directory.
    pub(super) fn new(size: u64, memory: bool, directory: &Path) -> io::Result<Self> {
        if memory && size <= MEMORY_BYTES_MAX {
            return Ok(Self::Memory(Vec::with_capacity(size as usize)));
        }
        fs::create_dir_all(directory)?;
        let file = tempfile::tempfile_in(directory)?;
        Ok(Self::File(BufWriter::with_capacity(64 << 10, file), 0))
    }

    pub(super) fn finish(self) -> io::Result<Content> {
        match self {
            Self::Memory(bytes) => Ok(Content::Memory(bytes)),
            Self::File(writer, length) => {
                let file = writer
                    .into_inner()
                    .map_err(io::IntoInnerError::into_error)?;
                Ok(Content::File(file, length))
            }
        }
    }
}

impl Write for Filling {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Memory(held) => held.extend_from_slice(bytes),
            Self::File(writer, length) => {
                writer.write_all(bytes)?;
                *length += bytes.len() as u64;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A delta whose first lines were read.
#[derive(Debug)]
pub(super) struct Delta<R> {
    from: R,
    /// Of what it makes, in bytes.
    pub(super) makes: u64,
}

impl<R: BufRead> Delta<R> {
    /// `base`: the length of what it builds on.
    pub(super) fn begin(mut from: R, base: u64) -> io::Result<Self> {
        let mut number = || {
            let (mut value, mut shift) = (0, 0);
            loop {
                let mut byte = [0];
                from.read_exact(&mut byte)?;
                if shift > 56 {
                    return Err(bad("a delta does not say what it makes"));
                }
                value |= u64::from(byte[0] & 0x7f) << shift;
                shift += 7;
                if byte[0] & 0x80 == 0 {
                    return Ok(value);
                }
            }
        };
        let (on, makes) = (number()?, number()?);
        match on == base {
            true => Ok(Self { from, makes }),
            false => Err(bad(format!("a delta on {on} bytes is given {base}"))),
        }
    }

    /// Makes the object, and reads the delta to its end.
    pub(super) fn apply(mut self, base: &Content, out: &mut dyn Write) -> io::Result<()> {
        let mut made: u64 = 0;
        let mut insert = [0; 127];
        loop {
            let input = self.from.fill_buf()?;
            let Some(&command) = input.first() else {
                break;
            };
            self.from.consume(1);
            if command & 0x80 == 0 {
                if command == 0 {
                    return Err(bad("a delta has a command that means nothing"));
                }
                let insert = &mut insert[..usize::from(command)];
                self.from.read_exact(insert)?;
                made += insert.len() as u64;
                if made > self.makes {
                    break;
                }
                out.write_all(insert)?;
                continue;
            }
            // Of the seven bytes of offset and count those come that are not zero.
            let mut numbers = [0; 8];
            for bit in 0..7 {
                if command & (1 << bit) != 0 {
                    self.from.read_exact(&mut numbers[bit..=bit])?;
                }
            }
            let [a, b, c, d, e, f, g, _] = numbers;
            let from = u32::from_le_bytes([a, b, c, d]);
            let count = match u32::from_le_bytes([e, f, g, 0]) {
                0 => 0x1_0000,
                count => count,
            };
            made += u64::from(count);
            if made > self.makes {
                break;
            }
            base.pass(u64::from(from), u64::from(count), out)?;
        }
        match made == self.makes {
            true => Ok(()),
            false => Err(bad("a delta does not make what it says")),
        }
    }
}
