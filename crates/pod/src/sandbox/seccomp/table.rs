//! The system calls by name: `syscalls.txt`, one a line.
//!
//! A text and not an array: an array of strings has a pointer each, and a position-independent program relocates them all at
//! every start, that of a container's stage too.

const TEXT: &str = include_str!("syscalls.txt");

/// A set of system calls that this machine's processor may run. (seccomp(2), `AUDIT_ARCH_…`)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Arch {
    X86_64,
    X86,
    /// 32-bit pointers in 64-bit mode: `AUDIT_ARCH_X86_64` and bit 30 of the number.
    X32,
    Aarch64,
    Arm,
}

/// Bit 30 of an x32 number.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// Numbers from here on are private to arm (`__ARM_NR_BASE`): not "newer than the profile".
pub(super) const ARM_PRIVATE: u32 = 0xf_0000;

impl Arch {
    #[cfg(target_arch = "x86_64")]
    pub(super) const NATIVE: Self = Self::X86_64;
    #[cfg(target_arch = "aarch64")]
    pub(super) const NATIVE: Self = Self::Aarch64;

    /// Those that run on the same processor, the native one first.
    pub(super) fn family(self) -> &'static [Self] {
        match self {
            Self::X86_64 | Self::X86 | Self::X32 => &[Self::X86_64, Self::X86, Self::X32],
            Self::Aarch64 | Self::Arm => &[Self::Aarch64, Self::Arm],
        }
    }

    /// `AUDIT_ARCH_…` of linux/audit.h.
    pub(super) fn token(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Arguments have 32 bits.
    pub(super) fn is_narrow(self) -> bool {
        !matches!(self, Self::X86_64 | Self::Aarch64)
    }
}

/// What RuntimeDefault makes of a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    Refused,
    /// By its arguments.
    Conditional,
    /// With one of these, as bits of `CAP_*`.
    WithCapability(u64),
}

/// One system call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) name: &'static str,
    x86_64: Option<u32>,
    x86: Option<u32>,
    x32: Option<u32>,
    aarch64: Option<u32>,
    arm: Option<u32>,
    pub(super) verdict: Verdict,
}

impl Row {
    /// Its number; none where there is no such call.
    pub(super) fn number(&self, arch: Arch) -> Option<u32> {
        match arch {
            Arch::X86_64 => self.x86_64,
            Arch::X86 => self.x86,
            Arch::X32 => Some(self.x32? | X32_BIT),
            Arch::Aarch64 => self.aarch64,
            Arch::Arm => self.arm,
        }
    }
}

/// All of them, by name.
pub(super) struct Table {
    rows: Vec<Row>,
}

impl Table {
    pub(super) fn new() -> Self {
        let rows = TEXT.lines().filter(|line| !line.starts_with('#')).map(row);
        Self {
            rows: rows.collect(),
        }
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(super) fn find(&self, name: &str) -> Option<&Row> {
        let at = self.rows.binary_search_by(|row| row.name.cmp(name)).ok()?;
        Some(&self.rows[at])
    }
}

fn row(line: &'static str) -> Row {
    let mut words = line.split(' ');
    let name = words.next().unwrap_or_default();
    let mut number = || words.next().and_then(|word| word.parse().ok());
    let (x86_64, x86, aarch64, arm) = (number(), number(), number(), number());
    let verdict = match words.next() {
        Some("+") => Verdict::Allowed,
        Some("?") => Verdict::Conditional,
        None | Some("-") => Verdict::Refused,
        Some(names) => {
            let bits = names.split('|').filter_map(crate::sandbox::capability::bit);
            Verdict::WithCapability(bits.fold(0, |set, bit| set | bit))
        }
    };
    let x32 = words.next().and_then(|word| word.parse().ok()).or(x86_64);
    Row {
        name,
        x86_64,
        x86,
        x32,
        aarch64,
        arm,
        verdict,
    }
}
