//! Git's protocol, version 2 (gitprotocol-v2(5)): what is sent and what comes back, on any reader and writer.
//!
//! Written here and not taken from `gix-protocol`: two requests are all that is needed, without negotiation, and so a poll
//! is one request (the handshake is remembered by whoever calls).

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

use gix_hash::ObjectId;

/// A packet's greatest length (gitprotocol-common(5)).
const PACKET_BYTES_MAX: usize = 65_520;
/// Lines of an answer at most: references, shallow commits.
const LINES_MAX: usize = 1_000_000;

/// A packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    /// Bytes.
    Data(&'a [u8]),
    /// `0000`: the end of an answer.
    Flush,
    /// `0001`: the end of a section.
    Delimiter,
    /// `0002`: the end of an answer where connections go on.
    End,
}

/// Reads packets.
pub(super) struct Packets<R> {
    from: R,
    buffer: Vec<u8>,
}

impl<R: Read> Packets<R> {
    pub(super) fn new(from: R) -> Self {
        Self {
            from,
            buffer: Vec::new(),
        }
    }

    /// The next packet. An `ERR` packet is an error with the server's words.
    pub(super) fn next(&mut self) -> io::Result<Packet<'_>> {
        let mut length = [0; 4];
        self.from.read_exact(&mut length)?;
        let length = std::str::from_utf8(&length)
            .ok()
            .and_then(|text| usize::from_str_radix(text, 16).ok())
            .ok_or_else(|| bad("this is not git's protocol: a packet has no length"))?;
        match length {
            0 => return Ok(Packet::Flush),
            1 => return Ok(Packet::Delimiter),
            2 => return Ok(Packet::End),
            4..=PACKET_BYTES_MAX => {}
            _ => return Err(bad(format!("a packet of {length} bytes is not allowed"))),
        }
        self.buffer.resize(length - 4, 0);
        self.from.read_exact(&mut self.buffer)?;
        if let Some(words) = self.buffer.strip_prefix(b"ERR ") {
            return Err(bad(format!("the server says: {}", line(words))));
        }
        Ok(Packet::Data(&self.buffer))
    }
}

fn bad(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// A packet's text without its end of line; what others wrote is shown on one line and not at any length.
pub(super) fn line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end();
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(500)
        .collect()
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(format!("{:04x}{text}", text.len() + 4).as_bytes());
}

pub(super) const FLUSH: &[u8] = b"0000";
const DELIMITER: &[u8] = b"0001";

fn command(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, &format!("command={name}\n"));
    put(
        &mut out,
        &format!("agent=podkit/{}", podkit_foundation::VERSION),
    );
    put(&mut out, "object-format=sha1");
    out.extend_from_slice(DELIMITER);
    out
}

/// What a server says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Greeting {
    /// It speaks version 2.
    Two,
    /// It speaks the version before (gitprotocol-pack(5)): it names all that it has.
    Old(Old),
}

/// An old greeting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Old {
    /// With what tags lead to.
    pub(super) references: Vec<Reference>,
    /// By what tags lead to: the tags. Only what has a name can be asked for.
    tags: BTreeMap<ObjectId, ObjectId>,
    capabilities: Vec<String>,
}

/// Reads what the server can do; an error when that is not enough.
pub(super) fn read_greeting(from: impl Read) -> io::Result<Greeting> {
    let mut packets = Packets::new(from);
    let mut is_two = false;
    let mut old: Option<Old> = None;
    let mut lines = 0;
    loop {
        lines += 1;
        if lines > LINES_MAX {
            return Err(bad(format!("more than {LINES_MAX} references")));
        }
        match packets.next()? {
            // HTTP names its service first (gitprotocol-http(5)).
            Packet::Data(text) if text.starts_with(b"# service=") => {
                if packets.next()? != Packet::Flush {
                    return Err(bad("the answer to info/refs is not git's"));
                }
            }
            Packet::Data(text) => {
                if old.is_none() && line(text) == "version 2" {
                    is_two = true;
                } else if old.is_none() && line(text) == "version 1" {
                } else if !is_two {
                    old.get_or_insert_default().add(text)?;
                } else if line(text) == "object-format=sha256" {
                    return Err(bad(SHA256));
                }
            }
            Packet::Flush if is_two => return Ok(Greeting::Two),
            Packet::Flush => return Ok(Greeting::Old(old.unwrap_or_default())),
            _ => return Err(bad("the server says nothing of what it can do")),
        }
    }
}

const SHA256: &str = "its objects are named by SHA-256; expected SHA-1";

impl Old {
    /// A line of an old greeting: `ID NAME`, the first with what the server can do behind a NUL.
    fn add(&mut self, text: &[u8]) -> io::Result<()> {
        let no_reference = || bad(format!("\"{}\" is no reference", line(text)));
        let text = String::from_utf8_lossy(text);
        let (text, capabilities) = text.split_once('\0').unwrap_or((&text, ""));
        let words = capabilities.split_ascii_whitespace().map(str::to_owned);
        self.capabilities.extend(words);
        if self.can("object-format=sha256") {
            return Err(bad(SHA256));
        }
        let (id, name) = text.trim_end().split_once(' ').ok_or_else(no_reference)?;
        // A shallow repository names where it ends.
        if id == "shallow" {
            return Ok(());
        }
        let id = ObjectId::from_hex(id.as_bytes()).map_err(|_| no_reference())?;
        match (name.strip_suffix("^{}"), self.references.last_mut()) {
            // Nothing is there yet.
            (Some("capabilities"), _) => {}
            (Some(tag), Some(last)) if last.name == tag => {
                self.tags.insert(id, last.id);
                last.id = id;
            }
            (Some(_), _) => return Err(no_reference()),
            (None, _) => self.references.push(Reference {
                name: name.to_owned(),
                id,
            }),
        }
        Ok(())
    }

    fn can(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|found| found == capability)
    }
}

/// Asks for references.
pub(super) fn ls_refs(names: &[String]) -> Vec<u8> {
    let mut out = command("ls-refs");
    put(&mut out, "peel\n");
    put(&mut out, "symrefs\n");
    for name in names {
        put(&mut out, &format!("ref-prefix {name}\n"));
    }
    out.extend_from_slice(FLUSH);
    out
}

/// A reference and the commit that it leads to (of a tag: what the tag names).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// `refs/heads/main`.
    pub(super) name: String,
    /// The object.
    pub(super) id: ObjectId,
}

/// Reads the answer to [`ls_refs`].
pub(super) fn read_refs(from: impl Read) -> io::Result<Vec<Reference>> {
    let mut packets = Packets::new(from);
    let mut found = Vec::new();
    loop {
        let text = match packets.next()? {
            Packet::Flush => return Ok(found),
            Packet::Data(text) => String::from_utf8_lossy(text).trim_end().to_owned(),
            other => return Err(bad(format!("{other:?} among references"))),
        };
        if found.len() == LINES_MAX {
            return Err(bad(format!("more than {LINES_MAX} references")));
        }
        let mut words = text.split(' ');
        let (Some(id), Some(name)) = (words.next(), words.next()) else {
            return Err(bad(format!("\"{text}\" is no reference")));
        };
        let peeled = words.find_map(|word| word.strip_prefix("peeled:"));
        // A branch without a commit yet is `unborn`.
        if id == "unborn" {
            continue;
        }
        let id = ObjectId::from_hex(peeled.unwrap_or(id).as_bytes())
            .map_err(|_| bad(format!("\"{text}\" is no reference")))?;
        found.push(Reference {
            name: name.to_owned(),
            id,
        });
    }
}

/// What is asked for by [`fetch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The commit.
    pub(super) want: ObjectId,
    /// A commit that is here with all that belongs to it.
    pub(super) have: Option<ObjectId>,
    /// The commits here whose parents are not.
    pub(super) shallow: Vec<ObjectId>,
    /// Commits of history; 0 is all of it.
    pub(super) depth: u32,
}

/// Asks for a pack. Its deltas may build on what belongs to the commit that is here.
pub(super) fn fetch(wanted: &Wanted) -> Vec<u8> {
    let mut out = command("fetch");
    put(&mut out, "ofs-delta\n");
    put(&mut out, "no-progress\n");
    // Of a shallow history git leaves out what is here only where deltas may build on it.
    if wanted.have.is_some() {
        put(&mut out, "thin-pack\n");
    }
    put(&mut out, &format!("want {}\n", wanted.want));
    for commit in &wanted.shallow {
        put(&mut out, &format!("shallow {commit}\n"));
    }
    if wanted.depth > 0 {
        put(&mut out, &format!("deepen {}\n", wanted.depth));
    }
    if let Some(commit) = wanted.have {
        put(&mut out, &format!("have {commit}\n"));
    }
    put(&mut out, "done\n");
    out.extend_from_slice(FLUSH);
    out
}

/// Asks for a pack in the old version, all at once.
pub(super) fn fetch_old(wanted: &Wanted, old: &Old) -> io::Result<Vec<u8>> {
    for need in ["side-band-64k", "ofs-delta"] {
        if !old.can(need) {
            return Err(bad(format!(
                "the server speaks an old protocol, and without {need}"
            )));
        }
    }
    if wanted.depth > 0 && !old.can("shallow") {
        return Err(bad(
            "the server can't leave out history; expected --depth=0",
        ));
    }
    let want = old.tags.get(&wanted.want).unwrap_or(&wanted.want);
    let has_name = old
        .references
        .iter()
        .any(|reference| reference.id == wanted.want);
    let by_id = ["allow-tip-sha1-in-want", "allow-reachable-sha1-in-want"];
    if !has_name && !by_id.iter().any(|capability| old.can(capability)) {
        return Err(bad(format!(
            "no branch or tag leads to {}, and the server speaks an old protocol, in which only these can be asked for; \
             expected version 2 (in sshd_config: AcceptEnv GIT_PROTOCOL)",
            wanted.want
        )));
    }
    let mut out = Vec::new();
    let mut words = vec!["side-band-64k", "ofs-delta"];
    words.extend(["no-progress"].iter().filter(|word| old.can(word)));
    if wanted.have.is_some() && old.can("thin-pack") {
        words.push("thin-pack");
    }
    put(&mut out, &format!("want {want} {}\n", words.join(" ")));
    for commit in &wanted.shallow {
        put(&mut out, &format!("shallow {commit}\n"));
    }
    if wanted.depth > 0 {
        put(&mut out, &format!("deepen {}\n", wanted.depth));
    }
    out.extend_from_slice(FLUSH);
    if let Some(commit) = wanted.have {
        put(&mut out, &format!("have {commit}\n"));
    }
    put(&mut out, "done\n");
    Ok(out)
}

/// Reads the answer to [`fetch_old`]; the pack itself comes from the reader returned.
pub(super) fn read_fetch_old<R: Read>(from: R, wanted: &Wanted) -> io::Result<(Shallow, Pack<R>)> {
    let mut packets = Packets::new(from);
    let mut shallow = Shallow::default();
    // Only who asks for less than all is told where history ends.
    if wanted.depth > 0 {
        while let Packet::Data(text) = packets.next()? {
            shallow.add(&line(text))?;
            if shallow.shallow.len() + shallow.unshallow.len() > LINES_MAX {
                return Err(bad(format!("more than {LINES_MAX} lines before the pack")));
            }
        }
    }
    // Whether what is here is known there. The pack is whole in both cases.
    match packets.next()? {
        Packet::Data(text) if text.starts_with(b"NAK") || text.starts_with(b"ACK ") => {}
        _ => return Err(bad("the server sends no pack")),
    }
    Ok((shallow, Pack::new(packets)))
}

/// The answer to [`fetch`] up to its pack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shallow {
    /// Commits whose parents are not in the pack.
    pub(super) shallow: Vec<ObjectId>,
    /// Commits whose parents are here now.
    pub(super) unshallow: Vec<ObjectId>,
}

/// Reads the answer to [`fetch`]; the pack itself comes from the reader returned.
pub(super) fn read_fetch<R: Read>(from: R) -> io::Result<(Shallow, Pack<R>)> {
    let mut packets = Packets::new(from);
    let mut shallow = Shallow::default();
    let mut section = String::new();
    let mut lines = 0;
    loop {
        let text = match packets.next()? {
            Packet::Delimiter => {
                section.clear();
                continue;
            }
            Packet::Data(text) => line(text),
            Packet::Flush | Packet::End => return Err(bad("the server sends no pack")),
        };
        lines += 1;
        if lines > LINES_MAX {
            return Err(bad(format!("more than {LINES_MAX} lines before the pack")));
        }
        if section.is_empty() {
            if text == "packfile" {
                return Ok((shallow, Pack::new(packets)));
            }
            section = text;
            continue;
        }
        if section != "shallow-info" {
            continue;
        }
        shallow.add(&text)?;
    }
}

impl Shallow {
    fn add(&mut self, text: &str) -> io::Result<()> {
        let (list, id) = match text.split_once(' ') {
            Some(("shallow", id)) => (&mut self.shallow, id),
            Some(("unshallow", id)) => (&mut self.unshallow, id),
            _ => return Err(bad(format!("\"{text}\" among shallow commits"))),
        };
        let id = ObjectId::from_hex(id.as_bytes());
        list.push(id.map_err(|_| bad(format!("\"{text}\" names no commit")))?);
        Ok(())
    }
}

/// The bytes of a pack, out of the side band that carries them (gitprotocol-pack(5)).
pub(super) struct Pack<R> {
    packets: Packets<R>,
    /// Why no more could be read.
    pub(super) broken: Option<String>,
    /// What was taken of the packet in the buffer, its band's byte included; 0: a new one is due.
    at: usize,
    ended: bool,
}

impl<R: Read> BufRead for Pack<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.advance()
            .inspect_err(|error| self.broken = Some(error.to_string()))?;
        match self.ended {
            true => Ok(&[]),
            false => Ok(&self.packets.buffer[self.at..]),
        }
    }

    fn consume(&mut self, count: usize) {
        if !self.ended {
            self.at += count;
        }
    }
}

impl<R: Read> Pack<R> {
    fn new(packets: Packets<R>) -> Self {
        Self {
            packets,
            broken: None,
            at: 0,
            ended: false,
        }
    }

    /// Sees to it that there is something in the buffer, or that it is known that nothing more comes.
    fn advance(&mut self) -> io::Result<()> {
        while !self.ended && (self.at == 0 || self.at >= self.packets.buffer.len()) {
            self.at = 0;
            match self.packets.next()? {
                Packet::Data([1, ..]) => self.at = 1,
                Packet::Data([2, ..]) => {}
                Packet::Data([3, words @ ..]) => {
                    return Err(bad(format!("the server says: {}", line(words))));
                }
                Packet::Data(_) => return Err(bad("a packet of an unknown band")),
                Packet::Flush | Packet::Delimiter | Packet::End => self.ended = true,
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Pack<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let from = self.fill_buf()?;
        let count = from.len().min(out.len());
        out[..count].copy_from_slice(&from[..count]);
        self.consume(count);
        Ok(count)
    }
}
