//! A profile as a program of the kernel's: classic BPF over `struct seccomp_data`. (seccomp(2), bpf(4) of BSD)
//!
//! Per architecture a binary search over the ranges of numbers that share a fate, so that a call costs seven comparisons and not a
//! hundred (and the kernel's own cache of calls that are always allowed sees the same). Numbers above the highest that the
//! profile names are newer than it: they fail with ENOSYS and not with the profile's error, since programs take
//! ENOSYS as "use the older call" (runc: `libcontainer/seccomp/patchbpf`).

use std::collections::BTreeMap;

use super::profile::{Action, Condition, Op, Profile, Rule};
use super::table::{ARM_PRIVATE, Arch, Table, X32_BIT};
use super::{Filter, SeccompError};

/// `BPF_MAXINSNS`.
const INSTRUCTIONS_MAX: usize = 4096;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const IF_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const IF_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    /// How many instructions to skip when the condition holds, and when not.
    pub(super) then: u8,
    pub(super) or: u8,
    pub(super) k: u32,
}

impl Instruction {
    fn new(code: u16, k: u32) -> Self {
        Self {
            code,
            then: 0,
            or: 0,
            k,
        }
    }

    fn branch(code: u16, k: u32, then: u8, or: u8) -> Self {
        Self { code, then, or, k }
    }

    /// As it lies in memory, little endian (both architectures are).
    pub(super) fn bits(self) -> u64 {
        u64::from(self.code)
            | u64::from(self.then) << 16
            | u64::from(self.or) << 24
            | u64::from(self.k) << 32
    }
}

/// What becomes of a number.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate<'a> {
    Always(Action),
    /// The first rule that holds, or else the default.
    Ask {
        rules: Vec<&'a Rule>,
        narrow: bool,
        default: Action,
    },
}

/// Compiles for this machine's architecture.
pub(super) fn compile(profile: &Profile, table: &Table) -> Result<Filter, SeccompError> {
    let instructions = instructions(profile, table, Arch::NATIVE);
    if instructions.len() > INSTRUCTIONS_MAX {
        return Err(SeccompError::TooLarge(instructions.len()));
    }
    Ok(Filter {
        flags: profile.flags,
        program: instructions.into_iter().map(Instruction::bits).collect(),
    })
}

/// Compiles for a machine whose own architecture is `native`.
pub(super) fn instructions(profile: &Profile, table: &Table, native: Arch) -> Vec<Instruction> {
    let mut code = vec![Instruction::new(LOAD, ARCH)];
    for arch in native.family() {
        // x32 lies in the upper half of x86_64.
        if *arch == Arch::X32 || !(*arch == native || profile.arches.contains(arch)) {
            continue;
        }
        let mut ranges = ranges(profile, table, *arch);
        if *arch == Arch::X86_64 {
            ranges.extend(if profile.arches.contains(&Arch::X32) {
                self::ranges(profile, table, Arch::X32)
            } else {
                // As a call of an architecture that the profile does not have.
                vec![(X32_BIT, Fate::Always(Action::KillProcess))]
            });
            // -1 is no call at all: what a tracer leaves of one that it skips.
            ranges.push((u32::MAX, Fate::Always(profile.default)));
        }
        let mut section = vec![Instruction::new(LOAD, NUMBER)];
        search(&ranges, &mut section);
        code.push(Instruction::branch(IF_EQUAL, arch.token(), 1, 0));
        code.push(Instruction::new(JUMP, section.len() as u32));
        code.extend(section);
    }
    code.push(give(Action::KillProcess));
    code
}

fn give(action: Action) -> Instruction {
    Instruction::new(RETURN, action.code())
}

/// Where each range of numbers begins, ascending from the architecture's first, with its fate.
fn ranges<'a>(profile: &'a Profile, table: &Table, arch: Arch) -> Vec<(u32, Fate<'a>)> {
    let first = if arch == Arch::X32 { X32_BIT } else { 0 };
    let mut newest = None;
    let mut by_number: BTreeMap<u32, Vec<&Rule>> = BTreeMap::new();
    for rule in &profile.rules {
        let numbers = rule
            .names
            .iter()
            .filter_map(|name| table.find(name)?.number(arch));
        for number in numbers {
            if arch != Arch::Arm || number < ARM_PRIVATE {
                newest = newest.max(Some(number));
            }
            // What says what happens anyway is no rule. (runc does not hand it to libseccomp, which would refuse it.)
            if rule.action != profile.default {
                by_number.entry(number).or_default().push(rule);
            }
        }
    }
    let newer = match newest {
        Some(newest) if !profile.default.lets_pass() => newest + 1,
        _ => u32::MAX,
    };
    let unknown = Action::Errno(libc::ENOSYS as u16);
    let without_rule = |number: u32| {
        Fate::Always(match number >= newer {
            true => unknown,
            false => profile.default,
        })
    };
    let mut ranges: Vec<(u32, Fate<'a>)> = Vec::new();
    let mut add = |start: u32, fate: Fate<'a>| match ranges.last_mut() {
        // That range turned out to have no number of its own.
        Some((last, before)) if *last == start => *before = fate,
        _ => ranges.push((start, fate)),
    };
    add(first, without_rule(first));
    let mut newer_to_come = newer != u32::MAX;
    for (number, rules) in by_number {
        if newer_to_come && number > newer {
            add(newer, without_rule(newer));
        }
        newer_to_come &= number < newer;
        add(number, fate(rules, arch, profile.default));
        add(number + 1, without_rule(number + 1));
    }
    if newer_to_come {
        add(newer, without_rule(newer));
    }
    // Neighbours of one fate, where the gap between two rules turned out to be none.
    ranges.dedup_by(|next, before| next.1 == before.1);
    ranges
}

fn fate(rules: Vec<&Rule>, arch: Arch, default: Action) -> Fate<'_> {
    match rules.iter().find(|rule| rule.conditions.is_empty()) {
        Some(rule) => Fate::Always(rule.action),
        None => Fate::Ask {
            rules,
            narrow: arch.is_narrow(),
            default,
        },
    }
}

/// Binary search: the number is in the accumulator.
fn search(ranges: &[(u32, Fate<'_>)], code: &mut Vec<Instruction>) {
    match ranges {
        [] => {}
        [(_, Fate::Always(action))] => code.push(give(*action)),
        [
            (
                _,
                Fate::Ask {
                    rules,
                    narrow,
                    default,
                },
            ),
        ] => {
            for rule in rules {
                ask(rule, *narrow, code);
            }
            code.push(give(*default));
        }
        _ => {
            let (lower, upper) = ranges.split_at(ranges.len() / 2);
            let mut below = Vec::new();
            search(lower, &mut below);
            let from = upper[0].0;
            match u8::try_from(below.len()) {
                Ok(skip) => code.push(Instruction::branch(IF_AT_LEAST, from, skip, 0)),
                Err(_) => {
                    code.push(Instruction::branch(IF_AT_LEAST, from, 0, 1));
                    code.push(Instruction::new(JUMP, below.len() as u32));
                }
            }
            code.extend(below);
            search(upper, code);
        }
    }
}

/// Where a comparison leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Next,
    /// The condition holds.
    Holds,
    /// The rule does not.
    Fails,
}

/// One rule: falls through when it does not hold.
fn ask(rule: &Rule, narrow: bool, code: &mut Vec<Instruction>) {
    let mut parts: Vec<Vec<(Instruction, To, To)>> = Vec::new();
    for condition in &rule.conditions {
        parts.push(compare(condition, narrow || condition.int));
    }
    let total: usize = parts.iter().map(Vec::len).sum();
    let mut at = 0;
    for part in parts {
        let end = at + part.len();
        for (mut instruction, then, or) in part {
            // At most 6 arguments of 6 instructions each, so that all distances fit.
            let skip = |to: To| match to {
                To::Next => 0,
                To::Holds => (end - at - 1) as u8,
                // Over the rule's return.
                To::Fails => (total - at) as u8,
            };
            (instruction.then, instruction.or) = (skip(then), skip(or));
            code.push(instruction);
            at += 1;
        }
    }
    code.push(give(rule.action));
}

/// The instructions of one comparison, with where each leads when it is true and when not.
fn compare(condition: &Condition, low_half_only: bool) -> Vec<(Instruction, To, To)> {
    let offset = ARGUMENTS + 8 * u32::from(condition.index);
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let (high, low) = halves(condition.value);
    let (masked_high, masked_low) = halves(condition.masked);
    let load = |at: u32| (Instruction::new(LOAD, at), To::Next, To::Next);
    let branch = |code, k, then, or| (Instruction::new(code, k), then, or);
    let (holds, fails) = (To::Holds, To::Fails);
    let mut code = Vec::new();
    if !low_half_only {
        code.push(load(offset + 4));
        match condition.op {
            Op::Eq => code.push(branch(IF_EQUAL, high, To::Next, fails)),
            Op::Ne => code.push(branch(IF_EQUAL, high, To::Next, holds)),
            Op::Gt | Op::Ge => {
                code.push(branch(IF_GREATER, high, holds, To::Next));
                code.push(branch(IF_EQUAL, high, To::Next, fails));
            }
            Op::Lt | Op::Le => {
                code.push(branch(IF_GREATER, high, fails, To::Next));
                code.push(branch(IF_EQUAL, high, To::Next, holds));
            }
            Op::MaskedEq => {
                code.push((Instruction::new(AND, high), To::Next, To::Next));
                code.push(branch(IF_EQUAL, masked_high, To::Next, fails));
            }
        }
    }
    code.push(load(offset));
    let last = match condition.op {
        Op::Eq => branch(IF_EQUAL, low, holds, fails),
        Op::Ne => branch(IF_EQUAL, low, fails, holds),
        Op::Gt => branch(IF_GREATER, low, holds, fails),
        Op::Ge => branch(IF_AT_LEAST, low, holds, fails),
        Op::Lt => branch(IF_AT_LEAST, low, fails, holds),
        Op::Le => branch(IF_GREATER, low, fails, holds),
        Op::MaskedEq => {
            code.push((Instruction::new(AND, low), To::Next, To::Next));
            branch(IF_EQUAL, masked_low, holds, fails)
        }
    };
    code.push(last);
    code
}
