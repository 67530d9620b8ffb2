//! Giving back the program's code that only the start needed.
//!
//! The kernel maps 64 KiB around every page of code that is touched (fault-around), so a process that has read its command
//! line, its files and its certificates counts half the binary as resident, most of it for good. The pages themselves
//! stay in the page cache; what is still needed is mapped again at its next use, without I/O.

use std::fs;

/// Unmaps the code of this program from this process's page tables; what is used again comes back by itself.
pub fn give_back_start() {
    let (Ok(maps), Ok(program)) = (
        fs::read_to_string("/proc/self/maps"),
        fs::read_link("/proc/self/exe"),
    ) else {
        return;
    };
    let Some(program) = program.to_str() else {
        return;
    };
    for (start, end) in code_of(&maps, program) {
        // SAFETY: the range is a private mapping of the program's file that was never writable (r-xp), so its pages
        // hold just the file's bytes: MADV_DONTNEED drops them from the page table and the next access, by whatever
        // thread, reads the same bytes again (madvise(2)). The code that runs right now is no exception.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
    }
}

/// The ranges of `maps` (proc_pid_maps(5)) that are code of `program`.
fn code_of(maps: &str, program: &str) -> Vec<(usize, usize)> {
    let range = |line: &str| -> Option<(usize, usize)> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (rights, path) = (fields.next()?, fields.nth(3)?);
        let hex = |text| usize::from_str_radix(text, 16).ok();
        (rights == "r-xp" && path == program).then_some((hex(start)?, hex(end)?))
    };
    maps.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_the_program_is_taken() {
        let maps = "\
1000-2000 r--p 00000000 fe:00 7 /podkit\n\
2000-5000 r-xp 00001000 fe:00 7 /podkit\n\
5000-6000 rw-p 00004000 fe:00 7 /podkit\n\
6000-7000 r-xp 00000000 fe:00 8 /other\n\
7000-8000 r-xp 00000000 00:00 0 [vdso]\n";
        assert_eq!(code_of(maps, "/podkit"), [(0x2000, 0x5000)]);
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
