//! What `echo` takes.

use std::time::Duration;

use podkit_foundation::params::{Addr, Size};

podkit_foundation::params! {
    /// The parameters of `echo`.
    pub(super) struct Params {
        /// Addresses to answer HTTP on.
        listen: Vec<Addr> { default: Some(":8080") },
        /// Time before each answer; `?delay=` beats it.
        delay: Duration { default: Some("0s"), bounds: Some((0, 3_600_000)) },
        /// Status code of the answers; `?status=` beats it.
        status: u16 { default: Some("200"), bounds: Some((200, 599)) },
        /// Answer with so many bytes of filler instead of what was asked; `?size=` beats it.
        body_size: Option<Size> {},
    }
}
