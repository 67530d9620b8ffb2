//! Descriptors that tokio watches. Its constructor is unsafe since 1.54: it trusts the value to keep its number.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a descriptor until it becomes readable, as a pidfd does when its process ends. Needs a runtime with I/O.
pub(crate) fn watch_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd has one number for its life, and owns it.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Watches a descriptor for both directions. It must not block.
pub(crate) fn watch_both(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    let interest = Interest::READABLE.add(Interest::WRITABLE);
    // SAFETY: as above.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}
