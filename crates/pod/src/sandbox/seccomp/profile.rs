//! A profile: rules by name, before they are numbers. (OCI runtime specification, config-linux, "Seccomp")

use super::table::Arch;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    KillThread,
    KillProcess,
    Trap,
    Errno(u16),
    Trace(u16),
    Log,
    Allow,
}

impl Action {
    /// `SECCOMP_RET_…` of linux/seccomp.h.
    pub(super) fn code(self) -> u32 {
        match self {
            Self::KillThread => 0,
            Self::KillProcess => 0x8000_0000,
            Self::Trap => 0x0003_0000,
            Self::Errno(number) => 0x0005_0000 | u32::from(number),
            Self::Trace(number) => 0x7ff0_0000 | u32::from(number),
            Self::Log => 0x7ffc_0000,
            Self::Allow => 0x7fff_0000,
        }
    }

    /// Whether the call is made.
    pub(super) fn lets_pass(self) -> bool {
        matches!(self, Self::Allow | Self::Log | Self::Trace(_))
    }
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Ne,
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
    /// Its bits of `value` are those of `Condition::masked`.
    MaskedEq,
}

/// One comparison with an argument, unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which argument, 0 to 5.
    pub(super) index: u8,
    pub(super) op: Op,
    pub(super) value: u64,
    /// For [`Op::MaskedEq`].
    pub(super) masked: u64,
    /// The kernel takes an `int`: the upper half, which it does not look at, must not decide.
    pub(super) int: bool,
}

/// What becomes of some calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// Names that no architecture has count for nothing, as in every runtime: profiles are older or newer than kernels.
    pub(super) names: Vec<String>,
    pub(super) action: Action,
    /// All of them must hold.
    pub(super) conditions: Vec<Condition>,
}

/// All rules. A rule without conditions beats those with; among equals the first that holds counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Profile {
    /// For calls without a rule that holds.
    pub(super) default: Action,
    /// The native one, and others of its family. Calls of the rest kill the process.
    pub(super) arches: Vec<Arch>,
    pub(super) flags: u32,
    pub(super) rules: Vec<Rule>,
}
