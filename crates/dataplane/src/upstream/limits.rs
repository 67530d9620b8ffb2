//! The bounds towards upstreams, as parameters.

use std::time::Duration;

podkit_foundation::params! {
    /// How long an upstream may take, and what is kept of it.
    pub struct UpstreamLimits {
        /// To connect to an upstream, resolving its name included.
        connect_timeout: Duration { default: Some("5s"), bounds: Some((1, 3_600_000)) },
        /// Longest silence of an upstream that owes an answer or the rest of one.
        response_timeout: Duration { default: Some("60s"), bounds: Some((1, 86_400_000)) },
        /// Longest silence, both ways, of a tunnel: a connection in --mode tcp, or one that was upgraded (WebSocket).
        tunnel_timeout: Duration { default: Some("1h"), bounds: Some((1, 604_800_000)) },
        /// How long a connection to an upstream is kept without use. Below what applications keep theirs for (often 5s):
        /// who closes last is not asked in vain.
        upstream_idle_timeout: Duration { default: Some("4s"), bounds: Some((1, 3_600_000)) },
        /// Connections kept without use, at most, for each worker and upstream.
        upstream_idle: u32 { default: Some("256"), bounds: Some((0, 65_536)) },
        /// Connections of HTTP/2 to an upstream, at most, for each worker; another one is opened when the upstream takes no
        /// more requests on those that are open.
        upstream_h2_connections: u32 { default: Some("4"), bounds: Some((1, 1_024)) },
    }
}
