//! What can be set of `chain` besides its file, and the keys of listeners in it.

use std::path::PathBuf;

use podkit_foundation::params::{Addr, Cidr};

podkit_foundation::params! {
    /// The parameters of `chain`.
    pub struct Params {
        /// The file that says what is served: listeners, stages, routes. Watched.
        ///
        /// It can be given without the flag: `podkit chain FILE`. A change is in force as a whole, from the next request on, or refused with
        /// the reason in the log, in `podkit_chain_reloads_total` and on `/`, and the former state stays.
        chain_file: PathBuf { live: true },
        /// Connections at most, over all listeners and workers; one more is closed at once and counted.
        max_connections: u32 { default: Some("8192"), bounds: Some((1, 1_000_000)) },
    }
}

podkit_foundation::params! {
    /// The keys of a listener besides those of HTTP and TLS.
    pub(super) struct ListenerKeys {
        /// Where clients come: host:port, :port, [::1]:port or unix:/path; one or a list.
        listen: Vec<Addr> { optional: false },
        /// Balancers in front, as blocks of addresses, whose connections begin with a header of the PROXY protocol (v1 or v2).
        accept_proxy: Vec<Cidr> {},
    }
}
