//! `config`: keeps files in step with a source, validates them, and reloads the application.
//!
//! ```text
//!   file:   ──▶ source ─┐
//!   http:   ──▶ source ─┼─▶ set (later wins) ─▶ template ─▶ publish: validate, swap, reload, confirm ─▶ --out
//!   etcd:   ──▶ source ─┘                                              └─▶ or the former version comes back
//! ```
//!
//! One thread follows the sources and publishes; the main thread serves the admin pages. Ready as soon as a version is
//! published, be it one of a former process: a source that is away takes nothing from the application.

#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod metrics;
mod params;
mod service;
mod set;
mod source;
mod sync;
mod template;

use podkit_dataplane::module::Module;
use podkit_foundation::params::ParamSet as _;
use podkit_foundation::surface::{FileUse, Group, ModuleSpec};

use crate::publish::{NEEDS, PublishParams};

pub use params::{Params, Publish};
pub use source::{Form, SourceSpec};
pub use template::TemplateSpec;

/// The module, for the registry.
pub static MODULE: Module = Module {
    spec: &SPEC,
    build: service::build,
};

static SPEC: ModuleSpec = ModuleSpec {
    name: "config",
    group: Group::Sidecars,
    summary: "keep files in step with a source, validate them, reload the application",
    about: "Follows files, an HTTP server or etcd, and publishes what they have as one set: all of it or nothing. A set is \
            staged, validated, made present by one rename, and the application reloaded; when it does not take it, the former \
            version comes back and is reloaded, with the reason in the log, in the metrics and on `/`.\n\n\
            An empty source, or one that lost more than `--max-vanish` of its files, is refused. A source that is away \
            changes nothing: what was published stays, also over a restart. A process that is killed at any moment leaves a \
            complete set, and one that was not confirmed is taken back at the next start.\n\n\
            HTTP servers are asked by the proxies of HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY; this machine is asked straight.\n\n\
            A reader that opens several files and wants all of one version opens `OUT/..data` once and reads below that.\n\n\
            Ready when a version is published. SIGHUP reads every source anew, and tries again what was refused.",
    admin_port: 9602,
    data_path: false,
    config: None,
    params: &[Params::PARAMS, PublishParams::PARAMS],
    ports: &[],
    endpoints: &[],
    files: &[
        FileUse {
            name: "out",
            doc: "What is published, and in `..podkit` the versions of it; with --in-place they are beside it, in `.NAME.podkit`.",
        },
        FileUse {
            name: "source",
            doc: "With file:PATH: what is published. Read when it changes.",
        },
        FileUse {
            name: "template",
            doc: "With /a/file: the template. Read when it changes.",
        },
        FileUse {
            name: "token-file",
            doc: "The bearer token. Read each time it is sent.",
        },
        FileUse {
            name: "ca",
            doc: "PEM certificates of authorities. Read with every connection.",
        },
        FileUse {
            name: "cert, key",
            doc: "The certificate that sources are shown, and its key. Read with every connection.",
        },
        FileUse {
            name: "etcd-password-file",
            doc: "The password. Read at each login.",
        },
    ],
    needs: NEEDS,
    metrics: metrics::METRICS,
};
