//! RuntimeDefault: the profile of Docker and containerd. Which calls are allowed is in `syscalls.txt`; what depends on
//! arguments is here.

use super::profile::{Action, Condition, Op, Profile, Rule};
use super::table::{Arch, Table, Verdict};

const SYS_ADMIN: u64 = 1 << 21;

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET` of linux/sched.h.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// `AF_ALG`, the kernel's cryptography, and `AF_VSOCK`, which leads past every network namespace to the hypervisor.
const ALG: u64 = 38;
const VSOCK: u64 = 40;

/// `PER_LINUX`, `PER_LINUX32`, both with `UNAME26`, and the question which one it is. (personality(2))
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// For a container with these capabilities: each makes the calls that it is for useful.
pub(super) fn runtime_default(table: &Table, capabilities: u64) -> Profile {
    let allowed = table.rows().iter().filter(|row| match row.verdict {
        Verdict::Allowed => true,
        Verdict::WithCapability(any) => capabilities & any != 0,
        Verdict::Refused | Verdict::Conditional => false,
    });
    let mut rules = vec![Rule {
        names: allowed.map(|row| row.name.to_owned()).collect(),
        action: Action::Allow,
        conditions: Vec::new(),
    }];
    let mut when = |name: &str, action: Action, op: Option<(Op, u64)>| {
        let condition = op.map(|(op, value)| Condition {
            index: 0,
            op,
            value,
            masked: 0,
            int: true,
        });
        rules.push(Rule {
            names: vec![name.to_owned()],
            action,
            conditions: condition.into_iter().collect(),
        });
    };
    when("socket", Action::Allow, Some((Op::Lt, ALG)));
    when("socket", Action::Allow, Some((Op::Eq, ALG + 1)));
    when("socket", Action::Allow, Some((Op::Gt, VSOCK)));
    for personality in PERSONALITIES {
        when("personality", Action::Allow, Some((Op::Eq, personality)));
    }
    if capabilities & SYS_ADMIN != 0 {
        when("clone", Action::Allow, None);
        when("clone3", Action::Allow, None);
    } else {
        when("clone", Action::Allow, Some((Op::MaskedEq, NEW_NAMESPACES)));
        // Its flags are in memory, where a filter can't look; C libraries then use clone.
        when("clone3", Action::Errno(libc::ENOSYS as u16), None);
    }
    Profile {
        default: Action::Errno(libc::EPERM as u16),
        arches: Arch::NATIVE.family().to_vec(),
        flags: 0,
        rules,
    }
}
