//! `--sparse`: which paths are written, by the patterns of git's sparse-checkout file (gitignore(5), the last that
//! matches decides).

use std::path::Path;

/// The patterns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sparse(Vec<Pattern>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    /// `!`: leaves out.
    leaves_out: bool,
    /// Ends in `/`: directories only.
    directory: bool,
    /// Has a `/` elsewhere: begins at the top.
    anchored: bool,
    parts: Vec<String>,
}

impl Sparse {
    /// Reads the file.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&text).map_err(|why| format!("{}: {why}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim_end);
        let patterns: Vec<Pattern> = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| {
                let (leaves_out, rest) = match line.strip_prefix('!') {
                    Some(rest) => (true, rest),
                    None => (false, line),
                };
                let (directory, rest) = match rest.strip_suffix('/') {
                    Some(rest) => (true, rest),
                    None => (false, rest),
                };
                let anchored = rest.contains('/');
                let parts = rest.trim_start_matches('/').split('/');
                Pattern {
                    leaves_out,
                    directory,
                    anchored,
                    parts: parts.map(str::to_owned).collect(),
                }
            })
            .collect();
        if let Some(part) = patterns
            .iter()
            .flat_map(|pattern| &pattern.parts)
            .find(|part| part.contains(['[', '\\']))
        {
            return Err(format!(
                "\"{part}\": of patterns * ? and ** are understood; expected those"
            ));
        }
        match patterns.is_empty() {
            true => Err("has no pattern; expected at least one, such as /docs/".to_owned()),
            false => Ok(Self(patterns)),
        }
    }

    /// Whether a file is written: the last pattern that matches it, or a directory that it is in, decides.
    pub(super) fn takes(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').collect();
        let last = self.0.iter().rev().find(|pattern| {
            (1..=parts.len()).any(|end| {
                let is_directory = end < parts.len();
                (is_directory || !pattern.directory) && pattern.matches(&parts[..end])
            })
        });
        last.is_some_and(|pattern| !pattern.leaves_out)
    }

    /// Whether there may be a file to write in a directory: false saves reading it.
    pub(super) fn may_hold(&self, directory: &str) -> bool {
        let parts: Vec<&str> = directory.split('/').collect();
        self.0.iter().any(|pattern| {
            !pattern.leaves_out
                && (!pattern.anchored
                    || pattern.parts.iter().any(|part| part == "**")
                    || pattern
                        .parts
                        .iter()
                        .zip(&parts)
                        .all(|(pattern, part)| glob(pattern.as_bytes(), part.as_bytes())))
        })
    }
}

impl Pattern {
    fn matches(&self, path: &[&str]) -> bool {
        match (self.anchored, path.last()) {
            (true, _) => in_turn(&self.parts, path),
            (false, Some(name)) => glob(self.parts[0].as_bytes(), name.as_bytes()),
            (false, None) => false,
        }
    }
}

/// Whether a path has the parts in turn, `**` standing for any number.
fn in_turn(pattern: &[String], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "**" => {
            (0..=path.len()).any(|at| in_turn(rest, &path[at..]))
        }
        (Some((first, rest)), Some((name, names))) => {
            glob(first.as_bytes(), name.as_bytes()) && in_turn(rest, names)
        }
        _ => false,
    }
}

/// `*` and `?` in one name.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}
