//! The objects of a repository: its packs, its loose objects, and those of the repositories that it borrows from.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use flate2::Decompress;
use gix_hash::{Kind as HashKind, ObjectId, oid};
use gix_object::Kind;

use super::bad;
use super::content::{Content, Delta, Filling};
use super::entry::{At, Entry, Form, Inflate};
use super::index::Index;

/// Of an object that is read whole: a commit, a directory, a link.
const WHOLE_BYTES_MAX: u64 = 64 << 20;
/// Deltas on each other; git makes 4095 at most.
const CHAIN_MAX: usize = 10_000;
/// Repositories that borrow from each other, one behind the other.
const BORROWED_MAX: usize = 5;
/// Tags of tags.
const TAGS_MAX: usize = 10;

/// The objects of a repository.
pub(in crate::git) struct Objects {
    /// `objects`, and those that are borrowed.
    directories: Vec<PathBuf>,
    /// The older first.
    packs: RefCell<Vec<Rc<Pack>>>,
    /// Where large objects that deltas build on may be.
    scratch: PathBuf,
    state: RefCell<Decompress>,
}

struct Pack {
    path: PathBuf,
    data: File,
    index: Index,
}

/// Where an object is.
enum Place {
    /// An entry of a pack that begins there.
    Packed(Rc<Pack>, u64),
    Loose(PathBuf),
}

impl Objects {
    /// Of an `objects` directory. Large objects that deltas build on are put into files of `scratch`.
    pub(in crate::git) fn open(directory: &Path, scratch: &Path) -> io::Result<Self> {
        let mut directories = vec![directory.to_owned()];
        borrowed(directory, 0, &mut directories)?;
        let objects = Self {
            packs: RefCell::new(packs(&directories)?),
            directories,
            scratch: scratch.to_owned(),
            state: RefCell::new(Decompress::new(true)),
        };
        Ok(objects)
    }

    /// Puts the object's bytes into the buffer.
    pub(in crate::git) fn read(
        &self,
        id: &oid,
        kind: Kind,
        buffer: &mut Vec<u8>,
    ) -> io::Result<()> {
        buffer.clear();
        let named = self.produce(id, |found, size| {
            if size > WHOLE_BYTES_MAX {
                let why =
                    format!("{kind} {id} has {size} bytes; expected {WHOLE_BYTES_MAX} at most");
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
            }
            Named::new(id, kind, found, size, buffer)
        });
        named?.check(id, kind)
    }

    /// Passes the object's bytes on as they come. Whether they are the right ones is known at the end.
    pub(in crate::git) fn pass(&self, id: &oid, kind: Kind, out: &mut dyn Write) -> io::Result<()> {
        let named = self.produce(id, |found, size| Named::new(id, kind, found, size, out));
        named?.check(id, kind)
    }

    /// The commit that an object leads to, through tags.
    pub(in crate::git) fn peel(&self, id: ObjectId) -> io::Result<ObjectId> {
        let (mut id, mut buffer) = (id, Vec::new());
        for _ in 0..TAGS_MAX {
            match self.kind(&id)? {
                Kind::Commit => return Ok(id),
                Kind::Tag => {
                    self.read(&id, Kind::Tag, &mut buffer)?;
                    let tag = gix_object::TagRefIter::from_bytes(&buffer, HashKind::Sha1);
                    let target = tag.target_id();
                    id = target.map_err(|error| bad(format!("tag {id}: {error}")))?;
                }
                kind => return Err(bad(format!("{id} is a {kind}, not a commit"))),
            }
        }
        Err(bad(format!("{id}: too many tags lead to it")))
    }

    fn kind(&self, id: &oid) -> io::Result<Kind> {
        let mut kind = None;
        self.produce(id, |found, _| {
            kind = Some(found);
            Ok(io::sink())
        })?;
        Ok(kind.expect("what was produced has begun"))
    }

    /// An object for deltas to build on, if it is here.
    pub(super) fn content(&self, id: &oid) -> io::Result<Option<(Kind, Content)>> {
        if self.find(id)?.is_none() {
            return Ok(None);
        }
        let mut kind = None;
        let filling = self.produce(id, |found, size| {
            kind = Some(found);
            Filling::new(size, true, &self.scratch)
        })?;
        let kind = kind.expect("what was produced has begun");
        Ok(Some((kind, filling.finish()?)))
    }

    /// Makes an object; `begin` is told its kind and length and says where its bytes go.
    fn produce<W: Write>(
        &self,
        id: &oid,
        begin: impl FnOnce(Kind, u64) -> io::Result<W>,
    ) -> io::Result<W> {
        let found = self.find(id)?;
        let mut place = found.ok_or_else(|| bad(format!("{id} is missing")))?;
        // Where the deltas' streams begin; the last one comes first.
        let mut deltas = Vec::new();
        let (kind, size) = loop {
            let (pack, offset) = match &place {
                Place::Loose(path) => break self.loose(path, None)?,
                Place::Packed(pack, offset) => (Rc::clone(pack), *offset),
            };
            let mut reader = At::new(&pack.data, offset);
            let entry = Entry::read(&mut reader).map_err(|error| pack.blame(&error))?;
            let stream = At::offset(&reader);
            place = match entry.form {
                Form::Whole(kind) => {
                    place = Place::Packed(pack, stream);
                    break (kind, entry.size);
                }
                Form::Behind(distance) => match offset.checked_sub(distance) {
                    Some(base) if distance > 0 => Place::Packed(Rc::clone(&pack), base),
                    _ => return Err(bad("a delta builds on what is not in its pack")),
                },
                // What is in its own pack can't lead in a circle.
                Form::On(base) => match pack.index.find(&base)? {
                    Some(base) => Place::Packed(Rc::clone(&pack), base),
                    None => self
                        .find(&base)?
                        .ok_or_else(|| bad(format!("{base} is missing")))?,
                },
            };
            deltas.push((pack, stream));
            if deltas.len() > CHAIN_MAX {
                return Err(bad(format!("{id}: too many deltas on each other")));
            }
        };
        if deltas.is_empty() {
            let mut out = begin(kind, size)?;
            self.whole(&place, size, &mut out)?;
            return Ok(out);
        }
        let mut filling = Filling::new(size, true, &self.scratch)?;
        self.whole(&place, size, &mut filling)?;
        let mut base = filling.finish()?;
        let mut state = self.state.borrow_mut();
        loop {
            let (pack, stream) = deltas.pop().expect("the last one returns");
            let inflate = Inflate::new(At::new(&pack.data, stream), &mut state);
            let delta = BufReader::with_capacity(8 << 10, inflate);
            let delta = Delta::begin(delta, base.length())?;
            if deltas.is_empty() {
                let mut out = begin(kind, delta.makes)?;
                delta.apply(&base, &mut out)?;
                return Ok(out);
            }
            let mut filling = Filling::new(delta.makes, true, &self.scratch)?;
            delta.apply(&base, &mut filling)?;
            base = filling.finish()?;
        }
    }

    /// Passes on what is stored whole.
    fn whole(&self, place: &Place, size: u64, out: &mut dyn Write) -> io::Result<()> {
        match place {
            Place::Loose(path) => self.loose(path, Some(out)).map(|_| ()),
            Place::Packed(pack, stream) => {
                let mut state = self.state.borrow_mut();
                Inflate::new(At::new(&pack.data, *stream), &mut state).pass(size, out)
            }
        }
    }

    /// A loose object's kind and length; its bytes are passed on.
    fn loose(&self, path: &Path, out: Option<&mut dyn Write>) -> io::Result<(Kind, u64)> {
        let mut state = self.state.borrow_mut();
        let mut inflate = Inflate::new(BufReader::new(File::open(path)?), &mut state);
        let mut head = Vec::new();
        loop {
            let mut byte = [0];
            if inflate.read(&mut byte)? == 0 || head.len() > 32 {
                return Err(bad(format!("{} is no object", path.display())));
            }
            match byte[0] {
                0 => break,
                byte => head.push(byte),
            }
        }
        let head = String::from_utf8_lossy(&head);
        let parsed = head.split_once(' ').and_then(|(kind, size)| {
            let kind = Kind::from_bytes(kind.as_bytes()).ok()?;
            Some((kind, size.parse().ok()?))
        });
        let (kind, size) = parsed.ok_or_else(|| bad(format!("{} is no object", path.display())))?;
        if let Some(out) = out {
            inflate.pass(size, out)?;
        }
        Ok((kind, size))
    }

    /// Where an object is, if it is here.
    fn find(&self, id: &oid) -> io::Result<Option<Place>> {
        if let Some(place) = self.look(id)? {
            return Ok(Some(place));
        }
        // Whoever else works on a repository may have packed it meanwhile.
        self.packs.replace(packs(&self.directories)?);
        self.look(id)
    }

    fn look(&self, id: &oid) -> io::Result<Option<Place>> {
        for pack in self.packs.borrow().iter() {
            if let Some(offset) = pack.index.find(id)? {
                return Ok(Some(Place::Packed(Rc::clone(pack), offset)));
            }
        }
        let digits = id.to_hex().to_string();
        let (first, rest) = digits.split_at(2);
        let paths = self
            .directories
            .iter()
            .map(|dir| dir.join(first).join(rest));
        Ok(paths.filter(|path| path.exists()).map(Place::Loose).next())
    }
}

impl Pack {
    fn blame(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
    }
}

/// Opens the packs of `objects` directories.
fn packs(directories: &[PathBuf]) -> io::Result<Vec<Rc<Pack>>> {
    let mut packs = Vec::new();
    for directory in directories {
        let entries = match fs::read_dir(directory.join("pack")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        let paths: io::Result<Vec<PathBuf>> = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect();
        let mut paths = paths?;
        paths.retain(|path| path.extension().is_some_and(|end| end == "idx"));
        paths.sort();
        for path in paths {
            let data = path.with_extension("pack");
            let opened = File::open(&data).and_then(|file| Ok((file, Index::open(&path)?)));
            match opened {
                Ok((file, index)) => packs.push(Rc::new(Pack {
                    path: data,
                    data: file,
                    index,
                })),
                // It was there a moment ago.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let why = format!("{}: {error}", path.display());
                    return Err(io::Error::new(error.kind(), why));
                }
            }
        }
    }
    Ok(packs)
}

/// Adds the directories that one borrows from (gitrepository-layout(5), `info/alternates`).
fn borrowed(directory: &Path, depth: usize, all: &mut Vec<PathBuf>) -> io::Result<()> {
    let text = match fs::read_to_string(directory.join("info/alternates")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    if depth == BORROWED_MAX {
        return Err(bad(format!(
            "{}: more than {BORROWED_MAX} repositories borrow from each other",
            directory.display()
        )));
    }
    for line in text.lines().filter(|line| !line.is_empty()) {
        if line.starts_with('#') {
            continue;
        }
        let other = directory.join(line);
        if !all.contains(&other) {
            all.push(other.clone());
            borrowed(&other, depth + 1, all)?;
        }
    }
    Ok(())
}

/// Passes an object's bytes on and reckons its name: a flipped bit in a store must not be published.
///
/// Without git's detection of collisions, which is for what comes from others, when it comes.
struct Named<'a> {
    out: &'a mut dyn Write,
    hash: Context,
}

impl<'a> Named<'a> {
    fn new(
        id: &oid,
        wanted: Kind,
        found: Kind,
        size: u64,
        out: &'a mut dyn Write,
    ) -> io::Result<Self> {
        if found != wanted {
            return Err(bad(format!("{id} is a {found}, not a {wanted}")));
        }
        let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        hash.update(format!("{found} {size}\0").as_bytes());
        Ok(Self { out, hash })
    }

    fn check(self, id: &oid, kind: Kind) -> io::Result<()> {
        match self.hash.finish().as_ref() == id.as_bytes() {
            true => Ok(()),
            false => Err(bad(format!("{kind} {id} is not what was stored"))),
        }
    }
}

impl Write for Named<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all(bytes)?;
        self.hash.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
