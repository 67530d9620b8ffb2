//! A pack that comes: written to a file as it comes, while the names of its objects are reckoned; then its index is made.
//!
//! Of each object 32 bytes are held, of each delta 8 (32 when it names what it builds on). Objects pass through a buffer;
//! those that deltas build on are held one line of descent at a time, beyond 16 MiB in files without a name.
//!
//! A thin pack stays thin: its deltas build on objects of the packs before it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use flate2::{Crc, Decompress};
use gix_hash::{Hasher, Kind as HashKind, ObjectId};
use gix_object::Kind;

use super::bad;
use super::content::{Content, Delta, Filling};
use super::entry::{At, Entry, Form, Inflate};
use super::index::{self, Line};
use super::objects::Objects;

/// What deltas build on is held in memory up to so many bytes, all together.
const HELD_BYTES_MAX: u64 = 16 << 20;

/// Takes a pack in, as `NAME.pack` with `NAME.idx` of a directory. One without objects is no pack.
pub(in crate::git) fn take(
    from: &mut dyn BufRead,
    directory: &Path,
    name: &str,
    scratch: &Path,
    older: &Objects,
) -> io::Result<()> {
    let (new, index) = (directory.join("new.pack"), directory.join("new.idx"));
    let taken = write(from, &new, &index, scratch, older).and_then(|any| {
        if !any {
            return fs::remove_file(&new);
        }
        // A pack without its index is not there.
        fs::rename(&new, directory.join(format!("{name}.pack")))?;
        fs::rename(&index, directory.join(format!("{name}.idx")))?;
        File::open(directory)?.sync_all()
    });
    if taken.is_err() {
        // A full disk has room again at once.
        drop((fs::remove_file(&new), fs::remove_file(&index)));
    }
    taken
}

/// Writes a pack and its index. False: it has no objects.
fn write(
    from: &mut dyn BufRead,
    pack: &Path,
    index: &Path,
    scratch: &Path,
    older: &Objects,
) -> io::Result<bool> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(pack)?;
    let mut intake = Intake {
        file: &file,
        scratch,
        state: Decompress::new(true),
        lines: Vec::new(),
        kinds: Vec::new(),
        behind: Vec::new(),
        on: Vec::new(),
    };
    let sum = intake.receive(from)?;
    if intake.lines.is_empty() {
        return Ok(false);
    }
    intake.resolve(older)?;
    let mut lines = intake.lines;
    lines.sort_unstable_by_key(|line| line.id);
    file.sync_data()?;
    index::write(&lines, &sum, File::create(index)?)?.sync_data()?;
    Ok(true)
}

struct Intake<'a> {
    file: &'a File,
    scratch: &'a Path,
    state: Decompress,
    /// In the order of their offsets. The name of a delta is not known yet.
    lines: Vec<Line>,
    /// Of each line; None: a delta.
    kinds: Vec<Option<Kind>>,
    /// Lines, and deltas that build on them.
    behind: Vec<(u32, u32)>,
    /// The same by names.
    on: Vec<(ObjectId, u32)>,
}

impl Intake<'_> {
    /// Writes the pack, and notes what is in it. Returns its sum.
    fn receive(&mut self, from: &mut dyn BufRead) -> io::Result<[u8; 20]> {
        let mut tee = Tee {
            from,
            out: BufWriter::with_capacity(64 << 10, self.file),
            sum: Context::new(&SHA1_FOR_LEGACY_USE_ONLY),
            crc: Crc::new(),
            offset: 0,
            failed: None,
        };
        let mut head = [0; 12];
        tee.read_exact(&mut head)?;
        let [b'P', b'A', b'C', b'K', 0, 0, 0, 2 | 3, count @ ..] = head else {
            return Err(bad("what comes is no pack of version 2 or 3"));
        };
        for number in 0..u32::from_be_bytes(count) {
            tee.crc.reset();
            let offset = tee.offset;
            let entry = Entry::read(&mut tee)?;
            let mut id = ObjectId::null(HashKind::Sha1);
            let mut kind = None;
            let stream = Inflate::new(&mut tee, &mut self.state);
            match entry.form {
                Form::Whole(found) => {
                    let mut naming = Naming::new(found, entry.size, None);
                    stream.pass(entry.size, &mut naming)?;
                    id = naming.finish()?.0;
                    kind = Some(found);
                }
                Form::Behind(distance) => {
                    stream.pass(entry.size, &mut io::sink())?;
                    let base = offset.checked_sub(distance);
                    let base = base.and_then(|base| {
                        let lines = &self.lines;
                        lines.binary_search_by_key(&base, |line| line.offset).ok()
                    });
                    let base = base.ok_or_else(|| bad("a delta builds on what is no entry"))?;
                    self.behind.push((base as u32, number));
                }
                Form::On(base) => {
                    stream.pass(entry.size, &mut io::sink())?;
                    self.on.push((base, number));
                }
            }
            let crc = tee.crc.sum();
            self.lines.push(Line { id, crc, offset });
            self.kinds.push(kind);
        }
        let sum = tee.sum.clone().finish();
        let mut told = [0; 20];
        tee.read_exact(&mut told)?;
        if let Some(error) = tee.failed.take() {
            return Err(error);
        }
        tee.out.flush()?;
        match sum.as_ref() == told {
            true => Ok(told),
            false => Err(bad("a pack's sum is not that of its bytes")),
        }
    }

    /// Reckons the names of what is stored as deltas.
    fn resolve(&mut self, older: &Objects) -> io::Result<()> {
        self.behind.sort_unstable();
        self.on.sort_unstable();
        for line in 0..self.lines.len() {
            let Some(kind) = self.kinds[line] else {
                continue;
            };
            let children = self.children(line);
            if children.is_empty() {
                continue;
            }
            let mut reader = At::new(self.file, self.lines[line].offset);
            let size = Entry::read(&mut reader)?.size;
            let mut filling = Filling::new(size, true, self.scratch)?;
            Inflate::new(reader, &mut self.state).pass(size, &mut filling)?;
            self.descend(kind, filling.finish()?, children)?;
        }
        // Those of a thin pack.
        let mut at = 0;
        while let Some(&(base, child)) = self.on.get(at) {
            let group = self.group(&base);
            at = group.end;
            if self.lines[child as usize].id.is_null()
                && let Some((kind, content)) = older.content(&base)?
            {
                let children = self.on[group].iter().map(|(_, child)| *child).collect();
                self.descend(kind, content, children)?;
            }
        }
        let lost = |(_, child): &&(ObjectId, u32)| self.lines[*child as usize].id.is_null();
        match self.on.iter().find(lost) {
            Some((base, _)) => Err(bad(format!("a delta builds on {base}, which is not here"))),
            None => Ok(()),
        }
    }

    fn group(&self, base: &ObjectId) -> Range<usize> {
        let begin = self.on.partition_point(|(on, _)| on < base);
        let count = self.on[begin..].partition_point(|(on, _)| on == base);
        begin..begin + count
    }

    /// The deltas that build on an object whose name is known.
    fn children(&self, line: usize) -> Vec<u32> {
        let behind = self.behind(line).iter().map(|(_, child)| *child);
        let on = self.on[self.group(&self.lines[line].id)].iter();
        behind.chain(on.map(|(_, child)| *child)).collect()
    }

    fn behind(&self, line: usize) -> &[(u32, u32)] {
        let begin = self
            .behind
            .partition_point(|(base, _)| (*base as usize) < line);
        let count = self.behind[begin..].partition_point(|(base, _)| *base as usize == line);
        &self.behind[begin..begin + count]
    }

    /// Names the deltas that build on an object, and those that build on them.
    fn descend(&mut self, kind: Kind, content: Content, children: Vec<u32>) -> io::Result<()> {
        let mut held = content.held();
        let mut stack = vec![(Rc::new(content), children)];
        while let Some((content, children)) = stack.last_mut() {
            let base = Rc::clone(content);
            let next = children.pop();
            if children.is_empty() {
                stack.pop();
            }
            let Some(child) = next.map(|child| child as usize) else {
                continue;
            };
            if self.lines[child].id.is_null() {
                let made = self.make(kind, child, &base, held < HELD_BYTES_MAX)?;
                let children = self.children(child);
                if let Some(made) = made.filter(|_| !children.is_empty()) {
                    held += made.held();
                    stack.push((Rc::new(made), children));
                }
            }
            if let Some(base) = Rc::into_inner(base) {
                held -= base.held();
            }
        }
        Ok(())
    }

    /// Names a delta; what it makes is returned where others may build on it.
    fn make(
        &mut self,
        kind: Kind,
        child: usize,
        base: &Content,
        memory: bool,
    ) -> io::Result<Option<Content>> {
        let wanted = !self.on.is_empty() || !self.behind(child).is_empty();
        let mut reader = At::new(self.file, self.lines[child].offset);
        Entry::read(&mut reader)?;
        let stream = Inflate::new(reader, &mut self.state);
        let stream = BufReader::with_capacity(8 << 10, stream);
        let delta = Delta::begin(stream, base.length())?;
        let filling = wanted.then(|| Filling::new(delta.makes, memory, self.scratch));
        let mut naming = Naming::new(kind, delta.makes, filling.transpose()?);
        delta.apply(base, &mut naming)?;
        let (id, filling) = naming.finish()?;
        self.lines[child].id = id;
        filling.map(Filling::finish).transpose()
    }
}

/// Reckons an object's name, as git does: an attempt at a collision is an error.
struct Naming {
    hash: Hasher,
    into: Option<Filling>,
}

impl Naming {
    fn new(kind: Kind, size: u64, into: Option<Filling>) -> Self {
        let mut hash = gix_hash::hasher(HashKind::Sha1);
        hash.update(format!("{kind} {size}\0").as_bytes());
        Self { hash, into }
    }

    fn finish(self) -> io::Result<(ObjectId, Option<Filling>)> {
        let id = self.hash.try_finalize();
        let id = id.map_err(|error| bad(error.to_string()))?;
        Ok((id, self.into))
    }
}

impl Write for Naming {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        if let Some(into) = &mut self.into {
            into.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes what is read.
struct Tee<'a> {
    from: &'a mut dyn BufRead,
    out: BufWriter<&'a File>,
    /// Of all bytes.
    sum: Context,
    /// Of the present entry's.
    crc: Crc,
    /// Bytes so far.
    offset: u64,
    /// Why they could not be written.
    failed: Option<io::Error>,
}

impl BufRead for Tee<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.from.fill_buf(),
        }
    }

    fn consume(&mut self, count: usize) {
        let written = self.from.fill_buf().and_then(|bytes| {
            let bytes = &bytes[..count];
            self.sum.update(bytes);
            self.crc.update(bytes);
            self.out.write_all(bytes)
        });
        self.failed = self.failed.take().or(written.err());
        self.offset += count as u64;
        self.from.consume(count);
    }
}

impl Read for Tee<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let from = self.fill_buf()?;
        let count = from.len().min(out.len());
        out[..count].copy_from_slice(&from[..count]);
        self.consume(count);
        Ok(count)
    }
}
