//! The bounds of HTTP/2, as parameters.

use std::time::Duration;

use podkit_foundation::params::Size;

podkit_foundation::params! {
    /// What HTTP/2 may make us hold and do. The bounds of HTTP/1.1 hold for each stream as well.
    pub struct Http2Limits {
        /// Serve HTTP/2: by ALPN where TLS is spoken, by prior knowledge where it is not.
        http2: bool { default: Some("true") },
        /// Requests that a client may have open on one HTTP/2 connection.
        ///
        /// RFC 9113 section 6.5.2 recommends at least 100. Each may hold a connection to an upstream.
        h2_max_streams: u32 { default: Some("128"), bounds: Some((1, 10_000)) },
        /// Bytes of one request's body that a client may send before they are taken.
        h2_stream_window: Size { default: Some("256Ki"), bounds: Some((1 << 10, 1 << 30)) },
        /// The same for all bodies of a connection together: what a client can make us hold.
        h2_connection_window: Size { default: Some("1Mi"), bounds: Some((64 << 10, 1 << 30)) },
        /// Bytes of a connection's answers that wait for a slow client at most.
        h2_send_buffer: Size { default: Some("64Ki"), bounds: Some((16 << 10, 1 << 30)) },
        /// Frames a second that carry nothing (PING, SETTINGS, PRIORITY, RST_STREAM, empty DATA, and WINDOW_UPDATE for
        /// what was never sent), and requests that are broken off for what the client did, on average over ten seconds; more is
        /// answered with ENHANCE_YOUR_CALM.
        ///
        /// Against rapid reset (CVE-2023-44487, CVE-2025-8671) and floods of PING and SETTINGS. A browser that leaves a page resets all
        /// of its streams at once, hence the ten seconds.
        h2_max_control_frames: u32 { default: Some("100"), bounds: Some((1, 1_000_000)) },
    }
}

/// How many of them may come at once, in seconds' worth.
pub(super) const CONTROL_BURST_SECONDS: u64 = 10;

impl Http2Limits {
    pub(super) fn stream_window(&self) -> u32 {
        window(self.h2_stream_window)
    }

    pub(super) fn connection_window(&self) -> u32 {
        window(self.h2_connection_window)
    }

    pub(super) fn send_buffer(&self) -> usize {
        usize::try_from(self.h2_send_buffer.0).unwrap_or(usize::MAX)
    }

    /// How long `frames` of control are paid back in.
    pub(super) fn control_refill(&self) -> Duration {
        Duration::from_secs(1) / self.h2_max_control_frames.max(1)
    }
}

/// Bounded by the declaration far below the protocol's 2^31 - 1.
fn window(size: Size) -> u32 {
    u32::try_from(size.0).unwrap_or(1 << 30)
}
