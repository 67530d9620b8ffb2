//! Giving back the program's code and constants that only the start needed.
//!
//! The kernel maps 64 KiB around every page of a file that is touched (fault-around), so a process that has read its command
//! line, its files and its certificates counts half the binary as resident, most of it for good; and to relocate it the
//! start reads all of its relocations. The pages themselves stay in the page cache; what is still needed is mapped again
//! at its next use, without I/O. What the start allocated and freed goes back likewise.

use std::fs;

/// Unmaps the code and the constants of this program from this process's page tables, and free heap; what is used again comes back by itself.
pub fn give_back_start() {
    // SAFETY: it asks for nothing (malloc_trim(3)); the free pages of the heap go back, what is allocated stays.
    unsafe { libc::malloc_trim(0) };
    let (Ok(smaps), Ok(program)) = (
        fs::read_to_string("/proc/self/smaps"),
        fs::read_link("/proc/self/exe"),
    ) else {
        return;
    };
    let Some(program) = program.to_str() else {
        return;
    };
    for (start, end) in unchanged_of(&smaps, program) {
        // SAFETY: the range is a private mapping of the program's file that can't be written to and of which no page was ever
        // (Anonymous is 0), so its pages hold just the file's bytes: MADV_DONTNEED drops them from the page table and
        // the next access, by whatever thread, reads the same bytes again (madvise(2)). The code that runs right now is
        // no exception. What was relocated and then made read-only has pages of its own, and is left alone.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
}

/// The ranges of `smaps` (proc_pid_smaps(5)) that are read-only and hold what is in the file of `program`.
fn unchanged_of(smaps: &str, program: &str) -> Vec<(usize, usize)> {
    let range = |line: &str| -> Option<(usize, usize)> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (rights, path) = (fields.next()?, fields.nth(3)?);
        let hex = |text| usize::from_str_radix(text, 16).ok();
        (matches!(rights, "r-xp" | "r--p") && path == program).then_some((hex(start)?, hex(end)?))
    };
    let (mut found, mut at) = (Vec::new(), None);
    for line in smaps.lines() {
        match line.strip_prefix("Anonymous:") {
            Some(size) if size.trim() == "0 kB" => found.extend(at.take()),
            Some(_) => at = None,
            // A line that begins with addresses begins a mapping; others tell of the present one.
            None if line
                .split(' ')
                .next()
                .is_some_and(|word| word.contains('-')) =>
            {
                at = range(line);
            }
            None => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_in_the_file_is_taken() {
        let smaps = "\
1000-2000 r--p 00000000 fe:00 7 /podkit\n\
Rss: 4 kB\nAnonymous: 0 kB\n\
2000-5000 r-xp 00001000 fe:00 7 /podkit\n\
Rss: 4 kB\nAnonymous:             0 kB\n\
5000-6000 r--p 00004000 fe:00 7 /podkit\n\
Rss: 4 kB\nAnonymous:             4 kB\n\
6000-7000 rw-p 00005000 fe:00 7 /podkit\n\
Rss: 0 kB\nAnonymous:             0 kB\n\
7000-8000 r-xp 00000000 fe:00 8 /other\n\
Rss: 4 kB\nAnonymous:             0 kB\n\
8000-9000 r-xp 00000000 00:00 0 [vdso]\n\
Rss: 4 kB\nAnonymous:             0 kB\n";
        let expected = [(0x1000, 0x2000), (0x2000, 0x5000)];
        assert_eq!(unchanged_of(smaps, "/podkit"), expected);
    }

    #[test]
    fn the_program_goes_on_and_holds_less() {
        let code = || -> usize {
            let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
            let mut lines = smaps.lines().skip_while(|line| !line.contains(" r-xp "));
            let rss = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
            rss.split_ascii_whitespace()
                .next()
                .unwrap()
                .parse()
                .unwrap()
        };
        // Touches much code: a test binary formats, sorts and parses. Other tests go on meanwhile and may touch as much again, but
        // not every time.
        let less = || {
            let before = code();
            give_back_start();
            code() < before
        };
        assert!((0..100).any(|_| less()), "never less than before");
    }
}
