//! `git-sync`: a directory in step with a git reference.
//!
//! ```text
//!   --period, webhook ──▶ worker ──▶ source ──▶ wire over http, ssh ─▶ store (packs) ─▶ checkout ─────────┐
//!                          │            │  └───▶ local: a repository, a bundle ────────────────▶ signers  │
//!                          │            └───────▶ submodule, sparse                                       ▼
//!                          └─────────────────────────────────────────────────────▶ publish: staged ─▶ link turned
//! ```
//!
//! Each repository has a thread that may wait; the admin server and the webhook are on the main one. What decides (protocol
//! lines, signatures, patterns, names) takes bytes. No program is started: neither git nor ssh is in the image.
//!
//! Of gix, objects are used. Its client was weighed and left out: it looks with two requests where one will do, and wants curl
//! or reqwest for HTTP. So was its reader of packs, which maps them (see `pack`).

mod checkout;
mod credentials;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod http;
mod local;
mod location;
mod metrics;
mod pack;
mod params;
mod service;
mod signers;
mod source;
mod sparse;
mod ssh;
mod store;
mod submodule;
#[cfg(test)]
mod tests;
mod webhook;
mod wire;
mod worker;

use podkit_dataplane::module::Module;
use podkit_dataplane::net::ListenerLimits;
use podkit_foundation::params::ParamSet as _;
use podkit_foundation::surface::{FileUse, Group, ModuleSpec, Port};

use crate::publish::{NEEDS, PublishParams};

pub use location::{Location, RefOf, Repo, Revision, Url};
pub use params::{Params, Submodules};
pub use ssh::{KeyFiles, SshUrl};

/// The module, for the registry.
pub static MODULE: Module = Module {
    spec: &SPEC,
    build: service::build,
};

static SPEC: ModuleSpec = ModuleSpec {
    name: "git-sync",
    group: Group::Sidecars,
    summary: "keep a directory in step with a git ref",
    about: "Fetches a branch, a tag or a commit, and publishes its files behind one symbolic link: `ROOT/NAME`. A reader sees \
            the old tree or the new one, never a mixture, whatever happens and whenever this process is killed. `--validate` \
            runs before anybody sees a version, `--reload` after, and what `--confirm` doesn't confirm goes back to the last \
            good tree. A version that was refused is not tried again until there is another commit, or SIGHUP; \
            one whose judge, the application's agent, was away is tried again at the next look.\n\n\
            A look with nothing new is one small request. A webhook (`--webhook`) makes pushes visible at once. Nothing \
            that git-sync publishes has a `.git`.\n\n\
            What is fetched passes through small buffers: memory grows with the number of objects, about 40 bytes each, not with \
            their size. A full disk leaves the old tree; it is tried again when there is room, and nothing is fetched again \
            meanwhile. A store that is spoilt is fetched anew.\n\n\
            git's protocol is spoken in its version 2 over http(s), and over ssh in this process: no ssh program is needed. Over ssh \
            the version before is spoken too, for an sshd without `AcceptEnv GIT_PROTOCOL`; such a server gives only commits that a \
            branch or tag leads to. ssh shows keys from files (`--ssh-key-file`) to servers whose keys are in \
            `--ssh-known-hosts-file`: ed25519, ecdsa, and rsa by SHA-2. Agents, certificates and ~/.ssh/config are not used. \
            http(s) goes by the proxies of HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY; this machine is asked straight. \
            The authorities of `https` are the machine's or the image's (`SSL_CERT_FILE`).\n\n\
            kubernetes/git-sync's `GITSYNC_…` variables are understood where they mean the same; others are named in the log. \
            Other than there, submodules are off unless asked for.",
    admin_port: 9603,
    data_path: false,
    config: None,
    params: &[
        Params::PARAMS,
        PublishParams::PARAMS,
        ListenerLimits::PARAMS,
    ],
    ports: &[Port {
        param: "webhook",
        port: None,
        protocol: "HTTP",
        doc: "Webhooks of GitHub, GitLab and Gitea.",
    }],
    endpoints: &[],
    files: &[
        FileUse {
            name: "ROOT/NAME",
            doc: "The link to the present tree; with `--in-place` the tree itself.",
        },
        FileUse {
            name: "ROOT/.podkit-git/NAME",
            doc: "What was fetched, and the trees. It may be removed while git-sync does not run; then all is fetched again.",
        },
        FileUse {
            name: "password-file",
            doc: "The password or token, one line. Read each time.",
        },
        FileUse {
            name: "ssh-key-file",
            doc: "Private keys for ssh. Read each time.",
        },
        FileUse {
            name: "ssh-key-passphrase-file",
            doc: "The passphrase of those that are encrypted, one line. Read each time.",
        },
        FileUse {
            name: "ssh-known-hosts-file",
            doc: "The keys of ssh servers. Read each time.",
        },
        FileUse {
            name: "github-app-private-key-file",
            doc: "The GitHub App's private key, PEM. Read for each token.",
        },
        FileUse {
            name: "webhook-secret-file",
            doc: "The webhook's secret, one line. Read each time.",
        },
        FileUse {
            name: "verify",
            doc: "Allowed signers (ssh-keygen). Read each time.",
        },
        FileUse {
            name: "sparse",
            doc: "Patterns of the files that are wanted. Read each time; a change publishes anew.",
        },
    ],
    needs: NEEDS,
    metrics: metrics::METRICS,
};
