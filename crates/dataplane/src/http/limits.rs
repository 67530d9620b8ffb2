//! The bounds of everything that speaks HTTP, as parameters.

use std::time::Duration;

use podkit_foundation::params::Size;

podkit_foundation::params! {
    /// What a client may make us hold, and for how long.
    pub struct HttpLimits {
        /// Connections at most, over all workers; one more is closed at once and counted.
        max_connections: u32 { default: Some("8192"), bounds: Some((1, 1_000_000)) },
        /// Bytes of a head at most: request or status line and all fields. More is answered with 431 or 414.
        max_head_bytes: Size { default: Some("32Ki"), bounds: Some((1 << 10, 1 << 20)) },
        /// Fields of a head at most. More is answered with 431.
        max_headers: u32 { default: Some("100"), bounds: Some((1, 256)) },
        /// Bytes of a request's body at most; 0 for no bound. More is answered with 413.
        max_body_bytes: Size { default: Some("0") },
        /// From the first byte of a request (or the TLS handshake's begin) to the end of its head.
        head_timeout: Duration { default: Some("10s"), bounds: Some((1, 3_600_000)) },
        /// Longest pause of a client that is sending a body.
        body_timeout: Duration { default: Some("30s"), bounds: Some((1, 86_400_000)) },
        /// Bytes a second that a request's body must come with on average, after the first --body-timeout; 0 for any.
        min_body_rate: Size { default: Some("64") },
        /// How long a kept-alive connection may wait for its next request, and a client may pause while it takes an answer.
        idle_timeout: Duration { default: Some("60s"), bounds: Some((1, 86_400_000)) },
    }
}

impl HttpLimits {
    /// Of a module's own pages: asked for by few, who say little and send no bodies, over connections kept for `idle`.
    pub fn of_pages(connections: u32, idle: Duration) -> Self {
        Self {
            max_connections: connections,
            max_head_bytes: Size(16 << 10),
            max_headers: 100,
            max_body_bytes: Size(1),
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            min_body_rate: Size(64),
            idle_timeout: idle,
        }
    }

    /// `--max-head-bytes` as a length.
    pub(crate) fn head_bytes(&self) -> usize {
        usize::try_from(self.max_head_bytes.0).unwrap_or(usize::MAX)
    }

    /// `--max-body-bytes`, None for no bound.
    pub(crate) fn body_bytes(&self) -> Option<u64> {
        Some(self.max_body_bytes.0).filter(|bytes| *bytes > 0)
    }

    /// `--max-connections` as a count.
    pub fn connections(&self) -> usize {
        self.max_connections as usize
    }

    /// `--max-headers` as a count.
    pub(crate) fn fields(&self) -> usize {
        self.max_headers as usize
    }
}
