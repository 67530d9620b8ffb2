//! What can be set about publishing, by every module that does.

use std::path::PathBuf;
use std::time::Duration;

use podkit_foundation::params;
use podkit_foundation::params::{ParamError, Percent};
use podkit_foundation::surface::{Need, NeedKind};

use super::action::{Action, check_validations};
use super::owner::{Mode, Owner};

params! {
    /// How a set of files is published.
    pub struct PublishParams {
        /// What must agree before a new version is seen by anybody: `exec:CMD`, `agent:CMD`, `http:POST:URL`.
        ///
        /// `{}` in a command is the staged directory. A command is split into words as a shell does (quotes count, nothing is
        /// expanded) and runs in this container, or with `agent:` in the application's, by `podkit agent`, which must see the
        /// staged files under the same path. Repeatable, in order; the first that fails refuses the version.
        validate: Vec<Action> { commas: false },
        /// What tells the application that there is a new version: `exec:CMD`, `agent:CMD`, `http:POST:URL`, `signal:SIG:PROCESS`.
        ///
        /// `{}` in a command is the published directory. A process is found by name in the PID namespace that the pod shares;
        /// of several with that name the one above the others is meant. KILL, for a restart policy to restart it, is done when
        /// the process has ended. Repeatable, in order. When one fails the former version comes
        /// back, and is reloaded.
        reload: Vec<Action> { commas: false },
        /// How it is known that the application took it: `http:URL` (a 2xx answer), `tcp:ADDR`, `exec:CMD`.
        ///
        /// Asked again and again until it succeeds or `--confirm-timeout` is over; then the former version comes back, and
        /// is reloaded. Repeatable: all must succeed.
        confirm: Vec<Action> { commas: false },
        /// How long the application may take until `--confirm` succeeds.
        confirm_timeout: Duration { default: Some("10s"), bounds: Some((100, 3_600_000)) },
        /// How long a validation or a reload may take; then it has failed.
        action_timeout: Duration { default: Some("30s"), bounds: Some((100, 3_600_000)) },
        /// The socket of the application's `podkit agent`, for `agent:CMD`.
        agent_socket: PathBuf { default: Some("/run/podkit-agent/agent.sock") },
        /// The part of the files that may vanish from one version to the next; 100% for as many as there are.
        ///
        /// A source that lost more is taken for broken, and refused. One without any file is always refused.
        max_vanish: Percent { default: Some("50%"), bounds: Some((0, 100)) },
        /// Former versions that are kept.
        keep: u32 { default: Some("2"), bounds: Some((1, 1_000)) },
        /// The owner of what is published: `UID` or `UID:GID`. Another than one's own needs CAP_CHOWN.
        chown: Option<Owner> {},
        /// The mode of what is published, octal; directories get x where they get r. Unless given, the source's.
        chmod: Option<Mode> {},
        /// Publish into a real directory instead of behind a symbolic link: the whole directory is exchanged at once.
        ///
        /// For applications that follow no links. The directory can't be the root of a volume: there is nothing to exchange
        /// it with.
        in_place: bool { default: Some("false") },
    }
}

/// What publishing needs of the pod.
pub const NEEDS: &[Need] = &[
    Need {
        feature: "--chown to another user or group",
        doc: "CAP_CHOWN.",
        kind: NeedKind::Capability("CHOWN"),
    },
    Need {
        feature: "--reload signal:SIG:PROCESS",
        doc: "A shared PID namespace.",
        kind: NeedKind::SharedPid,
    },
    Need {
        feature: "--reload signal:SIG:PROCESS to a process of another user",
        doc: "Root with CAP_KILL.",
        kind: NeedKind::Words,
    },
];

impl PublishParams {
    /// Two parameters that don't fit.
    pub fn check(&self) -> Result<(), ParamError> {
        check_validations(&self.validate).map_err(|why| ParamError::new("validate", why))?;
        for (field, actions) in [("validate", &self.validate), ("reload", &self.reload)] {
            if actions
                .iter()
                .any(|action| matches!(action, Action::Tcp(_)))
            {
                return Err(ParamError::new(
                    field,
                    "tcp:ADDR is for --confirm; expected exec:CMD or http:POST:URL",
                ));
            }
        }
        Ok(())
    }
}
