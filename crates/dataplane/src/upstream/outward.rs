//! What is the same for all connections to upstreams, whichever they go to.

use crate::tls::UpstreamTls;

/// How connections are opened. Clones share.
#[derive(Debug, Clone, Default)]
pub struct Outward {
    /// For `https://` upstreams; there must be one when there are such.
    pub tls: Option<UpstreamTls>,
    /// Bytes go through as they are: no protocol is named by ALPN, and nothing is multiplexed.
    pub raw: bool,
}
