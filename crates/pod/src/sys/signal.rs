//! Real-time signals, which rustix has no constants for.

use rustix::process::Signal;

/// The first that the C library leaves to applications, as every container runtime counts them.
pub(crate) const RTMIN: i32 = 34;
/// The last.
pub(crate) const RTMAX: i32 = 64;

/// A signal by its number, a real-time one too.
pub(crate) fn signal_of(number: i32) -> Option<Signal> {
    if !(RTMIN..=RTMAX).contains(&number) {
        return Signal::from_named_raw(number);
    }
    // SAFETY: a valid number; it is only ever sent, to processes that are not this one, so that it can't meet a handler of
    // this process's own C library.
    Some(unsafe { Signal::from_raw_unchecked(number) })
}
