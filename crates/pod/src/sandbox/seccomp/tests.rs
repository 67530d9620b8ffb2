//! The compiled programs are run here, by an interpreter, and compared with what the profile says in so many words.

use proptest::prelude::*;

use super::compile::{Instruction, instructions};
use super::profile::{Action, Condition, Op, Profile, Rule};
use super::table::{ARM_PRIVATE, Arch, Table, Verdict, X32_BIT};
use super::{SeccompError, default, json};
use crate::plan::Seccomp;

/// A call: `struct seccomp_data`.
#[derive(Debug, Clone, Copy)]
struct Call {
    token: u32,
    number: u32,
    args: [u64; 6],
}

/// Classic BPF, as much of it as filters use. (Documentation/networking/filter.rst)
fn run(program: &[Instruction], call: Call) -> u32 {
    let (mut at, mut accumulator) = (0, 0_u32);
    loop {
        let Instruction { code, then, or, k } = program[at];
        let branch = |holds: bool| usize::from(if holds { then } else { or });
        at += 1;
        match code {
            0x20 => {
                accumulator = match k {
                    0 => call.number,
                    4 => call.token,
                    _ => {
                        let arg = call.args[(k as usize - 16) / 8];
                        (if k % 8 == 4 { arg >> 32 } else { arg }) as u32
                    }
                }
            }
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += branch(accumulator == k),
            0x25 => at += branch(accumulator > k),
            0x35 => at += branch(accumulator >= k),
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn holds(condition: &Condition, call: Call, arch: Arch) -> bool {
    let mask = if condition.int || arch.is_narrow() {
        u64::from(u32::MAX)
    } else {
        u64::MAX
    };
    let arg = call.args[usize::from(condition.index)] & mask;
    let value = condition.value & mask;
    match condition.op {
        Op::Ne => arg != value,
        Op::Lt => arg < value,
        Op::Le => arg <= value,
        Op::Eq => arg == value,
        Op::Ge => arg >= value,
        Op::Gt => arg > value,
        Op::MaskedEq => arg & value == condition.masked & mask,
    }
}

/// What the profile says, rule by rule.
fn meant(profile: &Profile, table: &Table, arch: Arch, call: Call) -> u32 {
    let is = |name: &String| {
        let number = table.find(name).and_then(|row| row.number(arch));
        number == Some(call.number)
    };
    let rules: Vec<&Rule> = profile
        .rules
        .iter()
        .filter(|rule| rule.action != profile.default && rule.names.iter().any(is))
        .collect();
    if let Some(rule) = rules.iter().find(|rule| rule.conditions.is_empty()) {
        return rule.action.code();
    }
    let all = |rule: &&&Rule| rule.conditions.iter().all(|c| holds(c, call, arch));
    if let Some(rule) = rules.iter().find(all) {
        return rule.action.code();
    }
    let names = profile.rules.iter().flat_map(|rule| &rule.names);
    let newest = names
        .filter_map(|name| table.find(name)?.number(arch))
        .filter(|number| arch != Arch::Arm || *number < ARM_PRIVATE)
        .max();
    match newest {
        Some(newest)
            if call.number > newest && rules.is_empty() && !profile.default.lets_pass() =>
        {
            Action::Errno(libc::ENOSYS as u16).code()
        }
        _ => profile.default.code(),
    }
}

fn native_call(number: libc::c_long, args: [u64; 6]) -> Call {
    Call {
        token: Arch::NATIVE.token(),
        number: number as u32,
        args,
    }
}

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

#[track_caller]
fn check(capabilities: u64, number: libc::c_long, args: [u64; 6], expected: u32) {
    let table = Table::new();
    let profile = default::runtime_default(&table, capabilities);
    let program = instructions(&profile, &table, Arch::NATIVE);
    let got = run(&program, native_call(number, args));
    assert_eq!(got, expected, "call {number} {args:?}");
}

#[test]
fn runtime_default_is_what_containers_have() {
    const NONE: [u64; 6] = [0; 6];
    let first = |value: u64| [value, 0, 0, 0, 0, 0];
    for allowed in [
        libc::SYS_read,
        libc::SYS_execve,
        libc::SYS_openat,
        libc::SYS_futex,
        libc::SYS_ptrace,
        libc::SYS_seccomp,
        libc::SYS_landlock_create_ruleset,
    ] {
        check(0, allowed, NONE, ALLOW);
    }
    for refused in [
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_bpf,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_mount,
        libc::SYS_move_mount,
        libc::SYS_pivot_root,
        libc::SYS_kexec_load,
        libc::SYS_init_module,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_perf_event_open,
        libc::SYS_open_by_handle_at,
        libc::SYS_reboot,
        libc::SYS_chroot,
    ] {
        check(0, refused, NONE, EPERM);
    }
    // Each capability has its calls.
    check(1 << 18, libc::SYS_chroot, NONE, ALLOW);
    check(1 << 2, libc::SYS_open_by_handle_at, NONE, ALLOW);
    check(1 << 39, libc::SYS_bpf, NONE, ALLOW);
    check(1 << 21, libc::SYS_mount, NONE, ALLOW);
    check(1 << 21, libc::SYS_keyctl, NONE, EPERM);
    // New namespaces are not for all; threads are.
    check(0, libc::SYS_clone, first(0x7d_0f00), ALLOW);
    check(0, libc::SYS_clone, first(0x1000_0011), EPERM);
    check(1 << 21, libc::SYS_clone, first(0x1000_0011), ALLOW);
    check(0, libc::SYS_clone3, NONE, ENOSYS);
    check(1 << 21, libc::SYS_clone3, NONE, ALLOW);
    // Sockets but of two families, whatever is in the half that the kernel does not look at.
    check(0, libc::SYS_socket, first(2), ALLOW);
    check(0, libc::SYS_socket, first(39), ALLOW);
    check(0, libc::SYS_socket, first(44), ALLOW);
    for family in [38, 40, 38 | 1 << 32, 40 | 1 << 63] {
        check(0, libc::SYS_socket, first(family), EPERM);
    }
    check(0, libc::SYS_personality, first(0xffff_ffff), ALLOW);
    check(0, libc::SYS_personality, first(0x0040_0000), EPERM);
    // Newer than the profile: there is no such call.
    check(0, 800, NONE, ENOSYS);
    let table = Table::new();
    let whole = instructions(&default::runtime_default(&table, 0), &table, Arch::NATIVE);
    assert!(whole.len() < 700, "{} instructions", whole.len());
    // Other architectures of the family have the same rules; strangers die.
    let table = Table::new();
    let mut profile = default::runtime_default(&table, 0);
    profile.arches = Arch::X86_64.family().to_vec();
    let program = instructions(&profile, &table, Arch::X86_64);
    let result = |token: u32, number: u32| {
        let args = NONE;
        run(
            &program,
            Call {
                token,
                number,
                args,
            },
        )
    };
    let (wide, narrow) = (Arch::X86_64.token(), Arch::X86.token());
    assert_eq!(result(narrow, 4), ALLOW); // write
    assert_eq!(result(narrow, 310), EPERM); // unshare
    assert_eq!(result(narrow, 288), EPERM); // keyctl
    assert_eq!(result(narrow, 9999), ENOSYS);
    assert_eq!(result(wide, X32_BIT), ALLOW); // read
    assert_eq!(result(wide, X32_BIT | 520), ALLOW); // execve
    assert_eq!(result(wide, X32_BIT | 272), EPERM); // unshare
    assert_eq!(result(wide, u32::MAX), EPERM);
    assert_eq!(result(Arch::Aarch64.token(), 0), 0x8000_0000);
    profile.arches = Arch::Aarch64.family().to_vec();
    let program = instructions(&profile, &table, Arch::Aarch64);
    let result = |token: u32, number: u32| {
        let args = NONE;
        run(
            &program,
            Call {
                token,
                number,
                args,
            },
        )
    };
    assert_eq!(result(Arch::Aarch64.token(), 63), ALLOW); // read
    assert_eq!(result(Arch::Aarch64.token(), 97), EPERM); // unshare
    assert_eq!(result(Arch::Arm.token(), 0xf_0005), ALLOW); // set_tls
    assert_eq!(result(Arch::Arm.token(), 0xf_0006), ENOSYS);
    assert_eq!(result(wide, 0), 0x8000_0000);
}

#[test]
fn the_table_is_sorted_and_whole() {
    let table = Table::new();
    let names: Vec<&str> = table.rows().iter().map(|row| row.name).collect();
    assert!(names.is_sorted(), "binary search needs it");
    assert!(names.len() > 450);
    for row in table.rows() {
        let bound = |arch| {
            row.number(arch)
                .is_none_or(|n| n & !X32_BIT < ARM_PRIVATE + 16)
        };
        let arches = [Arch::X86_64, Arch::X86, Arch::X32, Arch::Aarch64, Arch::Arm];
        assert!(arches.into_iter().all(bound), "{row:?}");
        assert_ne!(row.verdict, Verdict::WithCapability(0), "{row:?}");
    }
    // The numbers that this program was compiled with.
    for (name, number) in [
        ("read", libc::SYS_read),
        ("clone3", libc::SYS_clone3),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("keyctl", libc::SYS_keyctl),
        ("futex_waitv", libc::SYS_futex_waitv),
        ("openat2", libc::SYS_openat2),
        ("ptrace", libc::SYS_ptrace),
    ] {
        let row = table.find(name).unwrap();
        assert_eq!(row.number(Arch::NATIVE), Some(number as u32), "{name}");
    }
}

/// The same for all, where the kernel's headers are installed.
#[test]
fn the_numbers_are_those_of_the_headers() {
    let table = Table::new();
    for (header, arch) in [
        ("unistd_64.h", Arch::X86_64),
        ("unistd_32.h", Arch::X86),
        ("unistd_x32.h", Arch::X32),
    ] {
        let path = std::path::Path::new("/usr/include/x86_64-linux-gnu/asm").join(header);
        let Ok(text) = std::fs::read_to_string(path) else {
            return;
        };
        for line in text.lines() {
            let Some(rest) = line.strip_prefix("#define __NR_") else {
                continue;
            };
            let (name, number) = rest.split_once(' ').unwrap();
            let number = number.trim_start_matches("(__X32_SYSCALL_BIT + ");
            let number: u32 = number.trim_end_matches(')').parse().unwrap();
            let known = table.find(name).and_then(|row| row.number(arch));
            let bit = if arch == Arch::X32 { X32_BIT } else { 0 };
            assert!(
                known.is_none_or(|known| known == number | bit),
                "{header}: {name} is {number}, not {known:?}"
            );
        }
    }
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Allow),
        Just(Action::KillProcess),
        Just(Action::Trap),
        Just(Action::Log),
        (0..4096_u16).prop_map(Action::Errno),
    ]
}

/// Values that differ in either half, or not at all.
fn value() -> impl Strategy<Value = u64> {
    let half = || prop_oneof![0..3_u64, Just(0x8000_0000), Just(0xffff_ffff)];
    (half(), half()).prop_map(|(high, low)| high << 32 | low)
}

fn condition() -> impl Strategy<Value = Condition> {
    let op = prop_oneof![
        Just(Op::Ne),
        Just(Op::Lt),
        Just(Op::Le),
        Just(Op::Eq),
        Just(Op::Ge),
        Just(Op::Gt),
        Just(Op::MaskedEq),
    ];
    (0..6_u8, op, value(), value(), any::<bool>()).prop_map(|(index, op, value, masked, int)| {
        Condition {
            index,
            op,
            value,
            masked,
            int,
        }
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let table = Table::new();
    let names: Vec<String> = table.rows().iter().map(|row| row.name.to_owned()).collect();
    let conditions = prop_oneof![
        3 => Just(Vec::new()),
        2 => proptest::collection::vec(condition(), 0..6),
    ];
    let some = proptest::sample::subsequence(names, 0..40);
    (some, action(), conditions).prop_map(|(names, action, conditions)| Rule {
        names,
        action,
        conditions,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// For any profile and any call the program gives what the profile says.
    #[test]
    fn programs_do_what_profiles_say(
        default in action(),
        rules in proptest::collection::vec(rule(), 0..12),
        with in any::<[bool; 2]>(),
        args in any::<[[u8; 2]; 6]>(),
        values in proptest::collection::vec(value(), 6),
        more in any::<[u32; 4]>(),
    ) {
        let table = Table::new();
        let mut arches = vec![Arch::X86_64];
        arches.extend([Arch::X86, Arch::X32].into_iter().zip(with).filter_map(|(a, yes)| yes.then_some(a)));
        let profile = Profile { default, arches, flags: 0, rules };
        let program = instructions(&profile, &table, Arch::X86_64);
        let mut given = [0; 6];
        for (at, value) in values.iter().enumerate() {
            given[at] = value ^ u64::from(args[at][0] % 3) ^ u64::from(args[at][1] % 3) << 32;
        }
        for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
            let bit = if arch == Arch::X32 { X32_BIT } else { 0 };
            let others = more.into_iter().map(|n| n % X32_BIT);
            for number in (0..600).step_by(3).map(|n| n + more[0] % 3).chain(others).map(|n| n | bit) {
                let call = Call { token: arch.token(), number, args: given };
                let expected = match profile.arches.contains(&arch) {
                    true => meant(&profile, &table, arch, call),
                    false => 0x8000_0000,
                };
                prop_assert_eq!(run(&program, call), expected, "{:?} {:?}", arch, call);
            }
        }
    }

    /// Whatever is in the file: an answer, and no panic.
    #[test]
    fn any_text_is_a_profile_or_an_error(text in ".*", bytes in any::<Vec<u8>>()) {
        let machine = json::Machine { capabilities: 0, kernel: (6, 1) };
        prop_assert!(json::parse(text.as_bytes(), machine).is_err());
        prop_assert!(json::parse(&bytes, machine).is_err());
    }
}

fn parsed(text: &str) -> Result<Profile, String> {
    let machine = json::Machine {
        capabilities: 1 << 21,
        kernel: (6, 1),
    };
    json::parse(text.as_bytes(), machine)
}

#[test]
fn profiles_of_the_runtime_specification() {
    let profile = parsed(
        r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64", "SCMP_ARCH_X86", "SCMP_ARCH_MIPS"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"], "comment": "passed over",
            "syscalls": [{"names": ["read", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
                         {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2,
                          "args": [{"index": 1, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 7, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}]}]}"#,
    )
    .unwrap();
    assert_eq!(profile.default, Action::Errno(38));
    assert_eq!(profile.flags, 2);
    assert!(profile.arches.contains(&Arch::NATIVE));
    // Two conditions on one argument: alternatives.
    assert_eq!(profile.rules.len(), 3);
    assert!(profile.rules[1..].iter().all(|r| r.conditions.len() == 1));
    assert_eq!(profile.rules[2].conditions[0].masked, 2);
    let smallest = parsed(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).unwrap();
    assert_eq!(smallest.arches, [Arch::NATIVE]);
}

#[test]
fn profiles_of_docker() {
    let text = |part: &str| {
        let text = format!(
            r#"{{"defaultAction": "SCMP_ACT_ERRNO", "archMap": [{{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X32"]}},
                {{"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}}, {{"architecture": "SCMP_ARCH_S390", "subArchitectures": null}}],
                "syscalls": [{{"name": "mount", "action": "SCMP_ACT_ALLOW", {part}}}]}}"#
        );
        let profile = parsed(&text).unwrap();
        assert_eq!(profile.arches.len(), 2);
        profile.rules.len()
    };
    for counts in [
        r#""includes": {"caps": ["CAP_SYS_ADMIN"]}"#,
        r#""includes": {"arches": ["amd64", "arm64"], "minKernel": "4.8"}"#,
        r#""excludes": {"caps": ["CAP_SYS_BOOT"], "arches": ["s390x"]}"#,
        r#""includes": {}, "excludes": {}, "args": []"#,
        r#""includes": null, "args": null"#,
    ] {
        assert_eq!(text(counts), 1, "{counts}");
    }
    for left_out in [
        r#""includes": {"caps": ["CAP_SYS_ADMIN", "CAP_SYS_BOOT"]}"#,
        r#""includes": {"arches": ["s390x"]}"#,
        r#""includes": {"minKernel": "6.2"}"#,
        r#""excludes": {"caps": ["CAP_SYS_ADMIN"]}"#,
        r#""excludes": {"minKernel": "5.10"}"#,
    ] {
        assert_eq!(text(left_out), 0, "{left_out}");
    }
    assert_eq!(json::kernel("6.1.0-13-amd64"), (6, 1));
    assert_eq!(json::kernel("rolling"), (0, 0));
}

#[test]
fn what_is_wrong_with_a_profile_is_said_with_its_place() {
    let error = |text: &str| parsed(text).unwrap_err();
    let rule = |rule: &str| {
        error(&format!(
            r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{{"names": ["read"], "action": "SCMP_ACT_ALLOW"}}, {rule}]}}"#
        ))
    };
    assert_eq!(
        error(r#"{"defaultAction": "ALLOW"}"#),
        r#"defaultAction: "ALLOW" is no action (SCMP_ACT_…)"#
    );
    assert_eq!(
        rule(r#"{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}"#),
        "syscalls[1]: action: SCMP_ACT_NOTIFY: nobody answers here"
    );
    assert_eq!(
        rule(r#"{"names": [], "action": "SCMP_ACT_ALLOW"}"#),
        "syscalls[1]: names: a rule needs one at least"
    );
    assert_eq!(
        rule(
            r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}"#
        ),
        "syscalls[1]: args[0].index: 6 (a call has arguments 0 to 5)"
    );
    assert_eq!(
        rule(r#"{"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000}"#),
        "syscalls[1]: action: errnoRet: 5000 is no error number (at most 4095)"
    );
    assert_eq!(
        rule(
            r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_FLY"]}}"#
        ),
        "syscalls[1]: caps: unknown \"CAP_FLY\""
    );
    assert!(error("{").contains("line 1 column 1"));
}

#[test]
fn localhost_profiles_stay_below_their_directory() {
    let dir = tempfile::tempdir().unwrap();
    let profiles = dir.path().join("seccomp");
    std::fs::create_dir_all(profiles.join("sub")).unwrap();
    let text = r#"{"defaultAction": "SCMP_ACT_LOG"}"#;
    std::fs::write(profiles.join("sub/log.json"), text).unwrap();
    std::fs::write(dir.path().join("outside.json"), text).unwrap();
    std::os::unix::fs::symlink("sub/log.json", profiles.join("inside.json")).unwrap();
    std::os::unix::fs::symlink("../outside.json", profiles.join("outside.json")).unwrap();
    let load = |file: &str| super::filter(&Seccomp::Localhost(file.into()), &profiles, 0);
    assert!(load("sub/log.json").unwrap().is_some());
    assert!(load("inside.json").unwrap().is_some());
    for escape in ["outside.json", "../outside.json", "/etc/hostname", "sub"] {
        assert!(
            matches!(load(escape), Err(SeccompError::Read { .. })),
            "{escape}"
        );
    }
    assert_eq!(
        load("none.json").unwrap_err().to_string(),
        format!(
            "failed to load seccomp profile {}/none.json: No such file or directory (os error 2)",
            profiles.display()
        )
    );
    std::fs::write(profiles.join("large.json"), vec![b' '; (1 << 20) + 1]).unwrap();
    assert!(load("large.json").is_err());
}

/// The table's rules against the profile that the distribution's containers have, where it is installed: what that one allows
/// without conditions is allowed here, with known exceptions.
#[test]
fn the_distribution_agrees() {
    let Ok(text) = std::fs::read("/usr/share/containers/seccomp.json") else {
        return;
    };
    let machine = json::Machine {
        capabilities: 0,
        kernel: (6, 18),
    };
    let theirs = json::parse(&text, machine).unwrap();
    let table = Table::new();
    let ours = default::runtime_default(&table, 0);
    let (theirs, ours) = [&theirs, &ours]
        .map(|profile| instructions(profile, &table, Arch::NATIVE))
        .into();
    let mut differ = Vec::new();
    for row in table.rows() {
        let Some(number) = row.number(Arch::NATIVE) else {
            continue;
        };
        let call = native_call(libc::c_long::from(number), [0; 6]);
        let allowed = |program: &[Instruction]| run(program, call) == ALLOW;
        if allowed(&theirs) && !allowed(&ours) {
            differ.push(row.name);
        }
    }
    assert!(differ.iter().all(|name| MORE.contains(name)), "{differ:?}");
}

/// What podman's profile allows and Docker's does not (it trusts the kernel's own checks).
const MORE: [&str; 20] = [
    "clone3",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_mempolicy",
    "keyctl",
    "mbind",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "pidfd_getfd",
    "pivot_root",
    "reboot",
    "set_mempolicy",
    "setns",
    "syslog",
    "umount2",
    "unshare",
];
