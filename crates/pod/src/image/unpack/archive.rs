//! Tar archives, entry by entry, from a stream that may be hostile: ustar, GNU (long names, old sparse files) and PAX (long
//! names, large numbers, extended attributes, sparse files), as Go's archive/tar reads what Docker and BuildKit write.
//! (POSIX pax(1); GNU tar manual, "Tar Internals")
//!
//! The header's layout is the `tar` crate's; its iterator was rejected: it reads a long name of whatever length into memory,
//! splits extended attributes at line feeds inside their values, takes a PAX sparse file for a plain one, and refuses an
//! empty number.

use std::io::{self, Read, Seek, SeekFrom};

use tar::{EntryType, GnuExtSparseHeader, Header};

/// Names, links and attributes of one entry: a PAX header or a GNU long name. (Go's archive/tar has the same bound)
const EXTENSION_BYTES_MAX: u64 = 1 << 20;
/// Pieces of a sparse file.
const SPARSE_PIECES_MAX: usize = 1 << 16;
const BLOCK: usize = 512;

/// One entry. Paths are as they stand in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::image) struct Entry {
    pub(in crate::image) path: Vec<u8>,
    pub(in crate::image) kind: Kind,
    /// Permission bits, set-user-id and so on.
    pub(in crate::image) mode: u32,
    pub(in crate::image) uid: u64,
    pub(in crate::image) gid: u64,
    /// Seconds and nanoseconds since 1970.
    pub(in crate::image) mtime: (i64, u32),
    /// Extended attributes: name, value.
    pub(in crate::image) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::image) enum Kind {
    /// A file; its bytes are read from the [`Reader`].
    File {
        /// Its size, holes included.
        size: u64,
        /// Where the bytes go: offset and length of each piece, in order; none when it has no holes.
        pieces: Option<Vec<(u64, u64)>>,
    },
    Directory,
    Symlink(Vec<u8>),
    /// The same file as this path of the archive.
    Hardlink(Vec<u8>),
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// Reads entries, and as [`Read`] the bytes of the last file.
pub(in crate::image) struct Reader<R> {
    source: R,
    /// Passes over bytes, and says over how many.
    pass: fn(&mut R, u64) -> io::Result<u64>,
    /// Of the current entry.
    remaining: u64,
    /// Behind it, up to the next block.
    padding: u64,
    /// Bytes read of the archive.
    offset: u64,
    ended: bool,
}

/// What extension headers said about the next entry.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: PaxSparse,
}

/// The three PAX forms of sparse files. (GNU tar manual, "Storing Sparse Files")
#[derive(Default)]
struct PaxSparse {
    /// 0.0 and 0.1: offsets and lengths, alternating.
    map: Vec<u64>,
    /// 1.0: the map is at the start of the data.
    in_data: bool,
    /// `GNU.sparse.name`, over the path.
    name: Option<Vec<u8>>,
    /// The size with holes.
    size: Option<u64>,
    any: bool,
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("not a tar archive: {}", what.into()),
    )
}

impl<R: Read> Reader<R> {
    pub(in crate::image) fn new(source: R) -> Self {
        Self::with(source, |source, bytes| {
            io::copy(&mut source.take(bytes), &mut io::sink())
        })
    }

    fn with(source: R, pass: fn(&mut R, u64) -> io::Result<u64>) -> Self {
        Self {
            source,
            pass,
            remaining: 0,
            padding: 0,
            offset: 0,
            ended: false,
        }
    }

    /// Where the bytes of the last file begin in the archive.
    pub(in crate::image) fn data_offset(&self) -> u64 {
        self.offset
    }

    /// The stream, behind the archive's end.
    pub(in crate::image) fn into_inner(self) -> R {
        self.source
    }

    /// The next entry; none at the end. What was not read of the last one is passed over.
    pub(in crate::image) fn next(&mut self) -> io::Result<Option<Entry>> {
        if self.ended {
            return Ok(None);
        }
        let mut extensions = Extensions::default();
        loop {
            self.skip(self.remaining + self.padding)?;
            (self.remaining, self.padding) = (0, 0);
            let Some(header) = self.header()? else {
                self.ended = true;
                return Ok(None);
            };
            let size = unsigned(&header.as_old().size, "size")?;
            match header.entry_type() {
                EntryType::GNULongName => extensions.path = Some(self.long_name(size)?),
                EntryType::GNULongLink => extensions.link = Some(self.long_name(size)?),
                EntryType::XHeader => {
                    let records = self.extension(size)?;
                    extensions.read(&records)?;
                }
                // Of all that follow: comments, such as git's commit.
                EntryType::XGlobalHeader => drop(self.extension(size)?),
                kind => return self.entry(&header, kind, size, extensions).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        kind: EntryType,
        size: u64,
        extensions: Extensions,
    ) -> io::Result<Entry> {
        let old = header.as_old();
        let mut path = extensions
            .path
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = || {
            let own = || header.link_name_bytes().map(|name| name.into_owned());
            extensions.link.clone().or_else(own).unwrap_or_default()
        };
        let device = || {
            // The same bytes in both forms; before ustar there are none.
            let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
                (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
                (None, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
                (None, None) => return Ok((0, 0)),
            };
            let number = |field: &[u8]| {
                u32::try_from(unsigned(field, "device")?).map_err(|_| invalid("a device number"))
            };
            Ok::<_, io::Error>((number(major)?, number(minor)?))
        };
        let stored = extensions.size.unwrap_or(size);
        self.begin(match kind {
            // Some writers give a link its target's size; there are no bytes.
            EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Directory
            | EntryType::Fifo => 0,
            _ => stored,
        });
        let file = |size| Kind::File { size, pieces: None };
        let kind = match kind {
            // Before ustar, a directory was a file whose name ends with a slash.
            EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous if extensions.sparse.any => {
                let sparse = extensions.sparse;
                if let Some(name) = sparse.name {
                    path = name;
                }
                let map = if sparse.in_data {
                    self.map_in_data()?
                } else {
                    sparse.map
                };
                let size = sparse
                    .size
                    .ok_or_else(|| invalid("a sparse file without a size"))?;
                self.sparse(&map, size)?
            }
            EntryType::Regular | EntryType::Continuous => file(stored),
            EntryType::GNUSparse => {
                let (map, size) = self.old_map(header)?;
                self.sparse(&map, size)?
            }
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(link()),
            EntryType::Link => Kind::Hardlink(link()),
            EntryType::Char => device().map(|(major, minor)| Kind::Character(major, minor))?,
            EntryType::Block => device().map(|(major, minor)| Kind::Block(major, minor))?,
            EntryType::Fifo => Kind::Fifo,
            other => {
                let byte = char::from(other.as_byte());
                return Err(invalid(format!("an entry of type {byte:?}")));
            }
        };
        let mtime = match extensions.mtime {
            Some(mtime) => mtime,
            None => (numeric(&old.mtime, "time")?, 0),
        };
        let mode = unsigned(&old.mode, "mode")? & 0o7777;
        let id = |said: Option<u64>, field: &[u8]| match said {
            Some(said) => Ok(said),
            None => unsigned(field, "owner"),
        };
        Ok(Entry {
            path,
            kind,
            mode: mode as u32,
            uid: id(extensions.uid, &old.uid)?,
            gid: id(extensions.gid, &old.gid)?,
            mtime,
            xattrs: extensions.xattrs,
        })
    }

    /// One block, checked; none at the end of the archive, which is two blocks of zeros, or one, or just the end.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.offset += BLOCK as u64;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        let sum: u32 = block[..148]
            .iter()
            .chain(&block[156..])
            .map(|b| u32::from(*b))
            .sum();
        let sum = sum + 8 * u32::from(b' ');
        if unsigned(&header.as_old().cksum, "checksum")? == u64::from(sum) {
            Ok(Some(header))
        } else {
            Err(invalid("a header's checksum is wrong"))
        }
    }

    fn begin(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// The bytes of an extension.
    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > EXTENSION_BYTES_MAX {
            return Err(invalid(format!("an extension of {size} bytes")));
        }
        self.begin(size);
        let mut bytes = vec![0; size as usize];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn long_name(&mut self, size: u64) -> io::Result<Vec<u8>> {
        let mut name = self.extension(size)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    /// The map of an old GNU sparse file: four pieces in the header, 21 in each block that follows.
    fn old_map(&mut self, header: &Header) -> io::Result<(Vec<u64>, u64)> {
        let gnu = header
            .as_gnu()
            .ok_or_else(|| invalid("a sparse file that is not GNU's"))?;
        let number = |field: &[u8]| unsigned(field, "sparse file");
        let size = number(&gnu.realsize)?;
        let mut map = Vec::new();
        let mut add = |pieces: &[tar::GnuSparseHeader]| -> io::Result<()> {
            for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
                map.extend([number(&piece.offset)?, number(&piece.numbytes)?]);
            }
            Ok(())
        };
        add(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        // These blocks are not counted in the entry's size.
        let data = self.remaining;
        let mut blocks = 0;
        while more {
            blocks += 1;
            if blocks > SPARSE_PIECES_MAX / 21 {
                return Err(invalid("a sparse file of too many pieces"));
            }
            let mut block = GnuExtSparseHeader::new();
            self.source.read_exact(block.as_mut_bytes())?;
            self.offset += BLOCK as u64;
            add(&block.sparse)?;
            more = block.is_extended();
        }
        self.begin(data);
        Ok((map, size))
    }

    /// The map of a PAX 1.0 sparse file: decimal numbers, one a line, the first how many pieces; padded to a block.
    fn map_in_data(&mut self) -> io::Result<Vec<u64>> {
        let mut block = [0; BLOCK];
        let mut at = BLOCK;
        let mut number = |this: &mut Self| -> io::Result<u64> {
            let mut value: u64 = 0;
            let mut digits = 0;
            loop {
                if at == BLOCK {
                    this.read_exact(&mut block)?;
                    at = 0;
                }
                let byte = block[at];
                at += 1;
                match byte {
                    b'\n' if digits > 0 => return Ok(value),
                    b'0'..=b'9' if digits < 19 => {
                        value = value * 10 + u64::from(byte - b'0');
                        digits += 1;
                    }
                    _ => return Err(invalid("the map of a sparse file")),
                }
            }
        };
        let pieces = number(self)?;
        if pieces > SPARSE_PIECES_MAX as u64 {
            return Err(invalid("a sparse file of too many pieces"));
        }
        (0..2 * pieces).map(|_| number(self)).collect()
    }

    /// A sparse file whose pieces lie in order, inside its size, and hold all the bytes that follow.
    fn sparse(&self, map: &[u64], size: u64) -> io::Result<Kind> {
        let wrong = || invalid("the map of a sparse file");
        let mut pieces = Vec::with_capacity(map.len() / 2);
        let (mut end, mut bytes) = (0, 0u64);
        for piece in map.chunks(2) {
            let &[offset, length] = piece else {
                return Err(wrong());
            };
            let next = offset.checked_add(length).ok_or_else(wrong)?;
            if offset < end || next > size {
                return Err(wrong());
            }
            (end, bytes) = (next, bytes + length);
            if length > 0 {
                pieces.push((offset, length));
            }
        }
        if bytes != self.remaining {
            return Err(wrong());
        }
        let pieces = Some(pieces);
        Ok(Kind::File { size, pieces })
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = (self.pass)(&mut self.source, bytes)?;
        self.offset += skipped;
        if skipped == bytes {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Of a file: what is not read is not touched.
    pub(in crate::image) fn seeking(source: R) -> Self {
        Self::with(source, |source, bytes| {
            let distance = i64::try_from(bytes).map_err(|_| io::ErrorKind::UnexpectedEof)?;
            source.seek(SeekFrom::Current(distance))?;
            Ok(bytes)
        })
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into
            .len()
            .min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let read = self.source.read(&mut into[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.remaining -= read as u64;
        self.offset += read as u64;
        Ok(read)
    }
}

impl Extensions {
    /// Records are `LENGTH KEY=VALUE\n`, where the length counts the whole record and the value may be any bytes.
    fn read(&mut self, mut records: &[u8]) -> io::Result<()> {
        let wrong = || invalid("an extended header");
        while !records.is_empty() {
            let space = records
                .iter()
                .take(20)
                .position(|byte| *byte == b' ')
                .ok_or_else(wrong)?;
            let length = number(&records[..space]).ok_or_else(wrong)?;
            let length = usize::try_from(length).map_err(|_| wrong())?;
            let record = records.get(space + 1..length).ok_or_else(wrong)?;
            let Some((b'\n', record)) = record.split_last() else {
                return Err(wrong());
            };
            let equals = record
                .iter()
                .position(|byte| *byte == b'=')
                .ok_or_else(wrong)?;
            self.set(&record[..equals], &record[equals + 1..])?;
            records = &records[length..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let wrong = || invalid("a value of an extended header");
        let need = || number(value).ok_or_else(wrong);
        // An empty value takes back what was said.
        let text = || Some(value.to_vec()).filter(|value| !value.is_empty());
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = Some(need()?),
            b"uid" => self.uid = Some(need()?),
            b"gid" => self.gid = Some(need()?),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(wrong)?),
            b"GNU.sparse.name" => self.sparse.name = text(),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => {
                self.sparse.any = true;
                self.sparse.size = Some(need()?);
            }
            b"GNU.sparse.major" => {
                self.sparse.any = true;
                self.sparse.in_data = need()? == 1;
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.sparse.any = true;
                if self.sparse.map.len() >= 2 * SPARSE_PIECES_MAX {
                    return Err(invalid("a sparse file of too many pieces"));
                }
                self.sparse.map.push(need()?);
            }
            b"GNU.sparse.map" => {
                self.sparse.any = true;
                let numbers = value
                    .split(|byte| *byte == b',')
                    .filter(|part| !part.is_empty());
                let map: Option<Vec<u64>> = numbers.map(number).collect();
                self.sparse.map = map.ok_or_else(wrong)?;
            }
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// A field of a header: octal digits, or base-256 (the first bit set) for what does not fit. An empty one is 0, as everybody
/// reads it but the `tar` crate.
fn numeric(field: &[u8], what: &str) -> io::Result<i64> {
    let wrong = || invalid(format!("the {what} of a header"));
    let (first, rest) = field.split_first().ok_or_else(wrong)?;
    if first & 0x80 != 0 {
        // Two's complement, without the bit that marks it.
        let negative = first & 0x40 != 0;
        let start = i64::from(first & 0x3f) - if negative { 0x40 } else { 0 };
        return rest.iter().try_fold(start, |value, byte| {
            let value = value.checked_mul(256).ok_or_else(wrong)?;
            value.checked_add(i64::from(*byte)).ok_or_else(wrong)
        });
    }
    let digits: &[u8] = field.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = std::str::from_utf8(digits)
        .map_err(|_| wrong())?
        .trim_matches(' ');
    if text.is_empty() {
        return Ok(0);
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    i64::from_str_radix(text, 8).map_err(|_| wrong())
}

fn unsigned(field: &[u8], what: &str) -> io::Result<u64> {
    let wrong = |_| invalid(format!("the {what} of a header is negative"));
    u64::try_from(numeric(field, what)?).map_err(wrong)
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `1700000000.123456789`, possibly negative.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanos: u32 = digits.parse().ok()?;
    match (seconds.starts_with('-'), nanos) {
        (true, 1..) => Some((whole.checked_sub(1)?, 1_000_000_000 - nanos)),
        _ => Some((whole, nanos)),
    }
}
