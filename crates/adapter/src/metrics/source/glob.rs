//! Patterns of paths: `*`, `?` and `[a-z]` within a name, as `sh` has them.

use std::path::{Path, PathBuf};

/// Names that are looked at, at most.
const MOST_SEEN: usize = 100_000;

/// It stands for more than itself.
pub(super) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// The paths that it stands for, by name. A directory that is not there has none.
pub(super) fn find(pattern: &str, most: usize) -> Result<Vec<PathBuf>, String> {
    let mut found = vec![PathBuf::from("/")];
    let mut seen = 0;
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for dir in found {
            match is_pattern(part) {
                true => names(&dir, part, &mut next, &mut seen)?,
                false => next.push(dir.join(part)),
            }
        }
        found = next;
    }
    found.retain(|path| path.exists());
    found.sort();
    match found.len() > most {
        true => Err(format!("{pattern} stands for more than {most} files")),
        false => Ok(found),
    }
}

fn names(dir: &Path, part: &str, out: &mut Vec<PathBuf>, seen: &mut usize) -> Result<(), String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        *seen += 1;
        if *seen > MOST_SEEN {
            return Err(format!("{}: too many files", dir.display()));
        }
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        // What is hidden wants its dot said.
        if (name[0] != b'.' || part.starts_with('.')) && matches(part.as_bytes(), name) {
            out.push(entry.path());
        }
    }
    Ok(())
}

/// Goes back to the last star only, so that it takes no longer than the product of both.
pub(super) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut of) = (0, 0);
    let mut star = None;
    while at < name.len() {
        if pattern.get(of) == Some(&b'*') {
            of += 1;
            star = Some((at, of));
        } else if let Some(len) = one(&pattern[of..], name[at]) {
            (at, of) = (at + 1, of + len);
        } else if let Some((begin, after)) = star {
            star = Some((begin + 1, after));
            (at, of) = (begin + 1, after);
        } else {
            return false;
        }
    }
    pattern[of..].iter().all(|byte| *byte == b'*')
}

/// How long what stands for this byte is, at the start of a pattern.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern.first()? {
        b'?' => Some(1),
        b'[' => {
            let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
            let begin = if negated { 2 } else { 1 };
            let rest = pattern.get(begin + 1..)?;
            let Some(end) = rest.iter().position(|byte| *byte == b']') else {
                return (byte == b'[').then_some(1);
            };
            let set = &pattern[begin..=begin + end];
            let mut at = 0;
            let mut within = false;
            while at < set.len() {
                if at + 2 < set.len() && set[at + 1] == b'-' {
                    within |= (set[at]..=set[at + 2]).contains(&byte);
                    at += 3;
                } else {
                    within |= set[at] == byte;
                    at += 1;
                }
            }
            (within != negated).then_some(begin + end + 2)
        }
        other => (*other == byte).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::proptest;

    #[test]
    fn patterns_stand_for_what_sh_says() {
        let check = |pattern: &str, name: &str, right: bool| {
            let found = matches(pattern.as_bytes(), name.as_bytes());
            assert_eq!(found, right, "{pattern} {name}");
        };
        check("*.prom", "a.prom", true);
        check("*.prom", "a.prom.x", false);
        check("a*b*c", "aXbYbZc", true);
        check("a*b*c", "aXbYbZ", false);
        check("?[a-c]", "xb", true);
        check("?[!a-c]", "xb", false);
        check("[]x]", "]", true);
        check("[a", "[a", true);
        check("", "", true);
        check("*", "", true);
        check("a", "", false);
    }

    proptest! {
        #[test]
        fn no_pattern_upsets_it(pattern in "[a-c*?\\[\\]!-]{0,12}", name in "[a-c\\[\\]-]{0,12}") {
            matches(pattern.as_bytes(), name.as_bytes());
        }

        #[test]
        fn stars_stand_for_anything(parts in proptest::collection::vec("[ab]{0,3}", 1..5), between in "[abc]{0,4}") {
            assert!(matches(parts.join("*").as_bytes(), parts.join(&between).as_bytes()));
        }
    }
}
