//! A pack's index, version 2: where each object is. Read where it is, not held.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use gix_hash::{ObjectId, oid};

use super::bad;

const MAGIC: [u8; 8] = [0xff, b't', b'O', b'c', 0, 0, 0, 2];
const FANS: u64 = 256 * 4;
const ID: u64 = 20;
/// Names that are read at once.
const NAMES_MAX: u64 = 1024;
/// Says that an offset is one of the long ones.
const LONG: u32 = 1 << 31;

/// An index to look things up in.
#[derive(Debug)]
pub(super) struct Index {
    file: File,
    /// How many names begin with a byte of at most that number.
    fans: Box<[u32; 256]>,
}

impl Index {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut magic = [0; 8];
        file.read_exact_at(&mut magic, 0)?;
        if magic != MAGIC {
            return Err(bad(format!("{} is no index of version 2", path.display())));
        }
        let mut bytes = [0; FANS as usize];
        file.read_exact_at(&mut bytes, 8)?;
        let mut fans = Box::new([0; 256]);
        for (fan, bytes) in fans.iter_mut().zip(bytes.as_chunks().0) {
            *fan = u32::from_be_bytes(*bytes);
        }
        let least = 8 + FANS + u64::from(fans[255]) * (ID + 8) + 2 * ID;
        if !fans.is_sorted() || file.metadata()?.len() < least {
            return Err(bad(format!("{} is cut short or spoilt", path.display())));
        }
        Ok(Self { file, fans })
    }

    /// Where in the pack an object is.
    pub(super) fn find(&self, id: &oid) -> io::Result<Option<u64>> {
        let bytes = id.as_bytes();
        let first = usize::from(bytes[0]);
        let before = first.checked_sub(1).map_or(0, |before| self.fans[before]);
        let (mut low, mut high) = (u64::from(before), u64::from(self.fans[first]));
        let names = 8 + FANS;
        while high - low > NAMES_MAX {
            let middle = low + (high - low) / 2;
            let mut name = [0; ID as usize];
            self.file.read_exact_at(&mut name, names + middle * ID)?;
            match name.as_slice() <= bytes {
                true => low = middle,
                false => high = middle,
            }
        }
        let mut buffer = [0; (NAMES_MAX * ID) as usize];
        let part = &mut buffer[..((high - low) * ID) as usize];
        self.file.read_exact_at(part, names + low * ID)?;
        let part: &[[u8; ID as usize]] = part.as_chunks().0;
        let Ok(at) = part.binary_search_by(|name| name.as_slice().cmp(bytes)) else {
            return Ok(None);
        };
        let count = u64::from(self.fans[255]);
        let offsets = names + count * (ID + 4);
        let mut short = [0; 4];
        self.file
            .read_exact_at(&mut short, offsets + (low + at as u64) * 4)?;
        let short = u32::from_be_bytes(short);
        if short & LONG == 0 {
            return Ok(Some(u64::from(short)));
        }
        let mut long = [0; 8];
        let at = offsets + count * 4 + u64::from(short ^ LONG) * 8;
        self.file.read_exact_at(&mut long, at)?;
        Ok(Some(u64::from_be_bytes(long)))
    }
}

/// An object's line of an index.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub(super) id: ObjectId,
    pub(super) crc: u32,
    pub(super) offset: u64,
}

/// Writes an index of lines that are sorted by their names.
pub(super) fn write(lines: &[Line], pack: &[u8; 20], file: File) -> io::Result<File> {
    let mut out = Hashed {
        out: BufWriter::with_capacity(64 << 10, file),
        hash: Context::new(&SHA1_FOR_LEGACY_USE_ONLY),
    };
    out.write_all(&MAGIC)?;
    let mut upto = 0;
    for first in 0..=255 {
        while lines
            .get(upto)
            .is_some_and(|line| line.id.as_bytes()[0] <= first)
        {
            upto += 1;
        }
        out.write_all(&(upto as u32).to_be_bytes())?;
    }
    for line in lines {
        out.write_all(line.id.as_bytes())?;
    }
    for line in lines {
        out.write_all(&line.crc.to_be_bytes())?;
    }
    let mut longs = Vec::new();
    for line in lines {
        let short = match u32::try_from(line.offset) {
            Ok(short) if short & LONG == 0 => short,
            _ => {
                longs.push(line.offset);
                LONG | (longs.len() - 1) as u32
            }
        };
        out.write_all(&short.to_be_bytes())?;
    }
    for long in longs {
        out.write_all(&long.to_be_bytes())?;
    }
    out.write_all(pack)?;
    let Hashed { mut out, hash } = out;
    out.write_all(hash.finish().as_ref())?;
    out.into_inner().map_err(io::IntoInnerError::into_error)
}

/// Writes, and reckons the sum.
struct Hashed {
    out: BufWriter<File>,
    hash: Context,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
