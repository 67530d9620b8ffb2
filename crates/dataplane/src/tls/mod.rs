//! TLS, of a server and towards upstreams (`origin`), by rustls with aws-lc-rs: certificates that change while connections come in, and clients that must
//! show one.
//!
//! ```text
//!  files ── source ──▶ pair (checked as a unit) ──▶ set (by SNI) ──┐
//!    ▲                                                           ├──▶ ServerConfig in force ──▶ every worker
//!  watch (inotify)     client (authorities, lists, rules) ───────┘        (server)              (stream)
//! ```
//!
//! **A pair is served only when all of it is good; what is no good leaves the former one in force.**
//! **A ticket never outlives the rules under which it was given.**
//! Key exchange offers X25519MLKEM768 first (RFC 9794's terms; draft-ietf-tls-ecdhe-mlkem), so that what is recorded today
//! can't be read by a quantum computer later.

mod certificate;
mod client;
mod files;
mod look;
mod metrics;
mod opened;
mod origin;
mod pair;
mod params;
mod rules;
mod selfsigned;
mod server;
mod set;
mod source;
mod stream;

pub use certificate::{Certificate, date};
pub use client::{ClientAuth, ClientRules, forwarded_client_cert};
pub use files::{FILES, UPSTREAM_FILES};
pub use look::Refusal;
pub use metrics::{METRICS, Reason};
pub use opened::Opened;
pub use origin::{
    Inside, MadeOf, ORIGIN_METRICS, OriginFile, OriginFiles, UpstreamHttp2Params, UpstreamTls,
    UpstreamTlsParams,
};
pub use pair::{Cause, Part};
pub use params::{MinVersion, TlsParams};
pub use rules::{AllowRules, CnRule, SanRule};
pub use server::{HTTP1, InForce, ServerTls, View};
pub use source::Source;
pub use stream::{Handshake, Keys, Side, TlsStream};

#[cfg(test)]
mod tests;
