//! The files of the parameters, for the surfaces of the modules that have them.

use podkit_foundation::surface::FileUse;

/// Of [`TlsParams`](super::TlsParams).
pub const FILES: &[FileUse] = &[
    FileUse {
        name: "cert",
        doc: "PEM chain, and its key when there is no `--key`. Watched, and read on SIGHUP.",
    },
    FileUse {
        name: "key",
        doc: "PEM private key. Watched, and read on SIGHUP.",
    },
    FileUse {
        name: "cert-dir",
        doc: "Directory of pairs. Watched, and read on SIGHUP.",
    },
    FileUse {
        name: "client-ca",
        doc: "PEM certificates of the authorities for clients. Watched, and read on SIGHUP.",
    },
    FileUse {
        name: "client-crl",
        doc: "PEM revocation lists of those authorities. Watched, and read on SIGHUP.",
    },
];

/// Of [`UpstreamTlsParams`](super::UpstreamTlsParams).
pub const UPSTREAM_FILES: &[FileUse] = &[
    FileUse {
        name: "upstream-ca",
        doc: "PEM certificates of the authorities for upstreams. Watched, and read on SIGHUP.",
    },
    FileUse {
        name: "upstream-cert",
        doc: "PEM chain shown to upstreams, and its key when there is no `--upstream-key`. Watched, and read on SIGHUP.",
    },
    FileUse {
        name: "upstream-key",
        doc: "PEM private key of it. Watched, and read on SIGHUP.",
    },
];
