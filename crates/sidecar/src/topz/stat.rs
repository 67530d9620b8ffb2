//! The kernel's text formats: bytes of a file under `/proc` in, numbers out.
//!
//! Only what `proc_pid_stat(5)` and its neighbours promise is used. Everything here is pure, borrows, and
//! answers None for what it doesn't understand: a process may vanish in the middle of a read.

/// What one read of `/proc/PID/stat` says: everything that is followed from look to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// The process, as the PID namespace of `/proc` numbers it.
    pub(crate) pid: u32,
    /// Its parent; 0 when that is outside the namespace.
    pub(crate) ppid: u32,
    /// When it started, in clock ticks since boot: with `pid`, what tells processes apart for good.
    pub(crate) start: u64,
    /// `R`, `S`, `D`, `Z`, `T`, `t`, `I`, …
    pub(crate) state: u8,
    /// Its threads.
    pub(crate) threads: u32,
    /// CPU time of its own, user and system, in clock ticks.
    pub(crate) ticks: u64,
    /// CPU time of the children it has waited for, and theirs, in clock ticks.
    pub(crate) children: u64,
    /// Resident memory, in pages.
    pub(crate) rss: u32,
    /// The bottom of its stack: changes with every exec (the kernel places it at random). 0 where we may not see it.
    pub(crate) exec: u64,
    /// A kernel thread (`PF_KTHREAD`): has no command line.
    pub(crate) kernel: bool,
    /// The name of the process, as exec or the process itself set it.
    pub(crate) comm: Comm,
}

/// A process's name: at most 15 bytes, any bytes. Longer ones (kernel workers) are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Comm {
    bytes: [u8; 15],
    len: u8,
}

impl Comm {
    pub(crate) fn new(name: &[u8]) -> Self {
        let len = name.len().min(15);
        let mut bytes = [0; 15];
        bytes[..len].copy_from_slice(&name[..len]);
        Self {
            bytes,
            len: len as u8,
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

const PF_KTHREAD: u64 = 0x0020_0000;

/// Reads `/proc/PID/stat`. The name may hold spaces, parentheses and newlines, so that it ends at the *last*
/// closing parenthesis; no field after it can hold one.
pub(crate) fn parse_stat(line: &[u8]) -> Option<Reading> {
    let open = line.iter().position(|&b| b == b'(')?;
    let close = line.iter().rposition(|&b| b == b')')?;
    let pid = number(line.get(..open)?.trim_ascii())?;
    let comm = Comm::new(line.get(open + 1..close)?);
    let mut fields = line
        .get(close + 1..)?
        .split(|&b| b == b' ')
        .filter(|field| !field.is_empty());
    let state = *fields.next()?.first()?;
    let ppid = number(fields.next()?)?;
    // Numbered as proc_pid_stat(5) does, from 1; the next one is field 5.
    let mut next = 5;
    let mut field = |wanted: usize| {
        let text = fields.nth(wanted - next)?;
        next = wanted + 1;
        Some(text.trim_ascii_end())
    };
    let flags = number(field(9)?)?;
    let ticks = number(field(14)?)?.saturating_add(number(field(15)?)?);
    // cutime and cstime are signed in the manual; a negative one would be a kernel bug, and counts as none.
    let children = [field(16)?, field(17)?]
        .into_iter()
        .filter_map(number)
        .sum();
    Some(Reading {
        pid: u32::try_from(pid).ok()?,
        ppid: u32::try_from(ppid).unwrap_or(0),
        state,
        ticks,
        children,
        threads: number(field(20)?)?.try_into().unwrap_or(u32::MAX),
        start: number(field(22)?)?,
        rss: number(field(24)?)
            .unwrap_or(0)
            .try_into()
            .unwrap_or(u32::MAX),
        exec: field(28).and_then(number).unwrap_or(0),
        kernel: flags & PF_KTHREAD != 0,
        comm,
    })
}

/// A whole number in decimal digits, nothing else.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// The value of `key` in a file of `Key:\tvalue` lines (`/proc/PID/status`, `/proc/PID/io`).
pub(crate) fn keyed<'a>(text: &'a [u8], key: &str) -> Option<&'a [u8]> {
    text.split(|&b| b == b'\n').find_map(|line| {
        line.strip_prefix(key.as_bytes())?
            .strip_prefix(b":")
            .map(<[u8]>::trim_ascii)
    })
}

/// The value of `key` in a file of `key value` lines (`cpu.stat`, `memory.events`).
pub(crate) fn spaced(text: &[u8], key: &str) -> Option<u64> {
    text.split(|&b| b == b'\n').find_map(|line| {
        number(
            line.strip_prefix(key.as_bytes())?
                .strip_prefix(b" ")?
                .trim_ascii(),
        )
    })
}

/// The effective user id in `/proc/PID/status` (`Uid: real effective saved file-system`).
pub(crate) fn parse_uid(status: &[u8]) -> Option<u32> {
    let mut ids = keyed(status, "Uid")?
        .split(u8::is_ascii_whitespace)
        .filter(|id| !id.is_empty());
    number(ids.nth(1)?)?.try_into().ok()
}

/// The process id handed out last in our PID namespace: `/proc/sys/kernel/ns_last_pid`, or the last field
/// of `/proc/loadavg`.
pub(crate) fn parse_last_pid(text: &[u8]) -> Option<u32> {
    let last = text.trim_ascii().rsplit(|&b| b == b' ').next()?;
    number(last)?.try_into().ok()
}

/// The ten-second average of a pressure file's `some` line, in percent of the time.
pub(crate) fn parse_pressure(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split(' ')
        .find_map(|pair| pair.strip_prefix("avg10="))?
        .parse()
        .ok()
}
