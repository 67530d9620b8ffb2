//! Git's packs and loose objects (gitformat-pack(5)), read and taken in with little memory, whatever their size.
//!
//! ```text
//!   a pack that comes ──▶ intake: written as it comes, names reckoned ──▶ index
//!   a name ──▶ objects: index ─▶ entry ─▶ (content ◀─ delta)… ──▶ a file of the checkout
//! ```
//!
//! Bytes pass through buffers. Only what deltas build on is held: in memory when it is small, else in a file without a name.
//!
//! gix's own reader was weighed and left out: it maps packs, so that a pack counts as resident memory and one that is cut
//! short ends the process by a signal, and it holds each object whole.

mod content;
mod entry;
mod index;
mod intake;
mod objects;
#[cfg(test)]
mod tests;

use std::io;

pub(super) use intake::take;
pub(super) use objects::Objects;

/// What is read is not as git writes it. Other errors are of the disk.
fn bad(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// Whether what was read is at fault, not the disk that is written to.
pub(super) fn is_bad(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    const IO: i32 = rustix::io::Errno::IO.raw_os_error();
    matches!(error.kind(), InvalidData | NotFound | UnexpectedEof)
        || error.raw_os_error() == Some(IO)
}

/// Whether a disk, or the part of it that one may use, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}
