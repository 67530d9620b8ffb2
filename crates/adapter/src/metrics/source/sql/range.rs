//! Versions of servers: `>=10.0.0 <13.0.0 || 9.6.24`.

/// Major, minor, patch.
pub(super) type Version = (u32, u32, u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Equal,
    Unequal,
    Below,
    AtMost,
    Above,
    AtLeast,
}

/// Any of these, each of which is all of those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range(Vec<Vec<(Sign, Version)>>);

impl Range {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let any = text.split("||").map(|all| {
            let all: Result<Vec<_>, String> = all.split_ascii_whitespace().map(one).collect();
            match all {
                Ok(all) if all.is_empty() => {
                    Err(format!("\"{text}\" has a part without a version"))
                }
                other => other,
            }
        });
        any.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn has(&self, version: Version) -> bool {
        let fits = |(sign, other): &(Sign, Version)| match sign {
            Sign::Equal => version == *other,
            Sign::Unequal => version != *other,
            Sign::Below => version < *other,
            Sign::AtMost => version <= *other,
            Sign::Above => version > *other,
            Sign::AtLeast => version >= *other,
        };
        self.0.iter().any(|all| all.iter().all(fits))
    }
}

fn one(text: &str) -> Result<(Sign, Version), String> {
    // Longer signs come first.
    const SIGNS: [(&str, Sign); 9] = [
        (">=", Sign::AtLeast),
        ("<=", Sign::AtMost),
        ("!=", Sign::Unequal),
        ("==", Sign::Equal),
        (">", Sign::Above),
        ("<", Sign::Below),
        ("=", Sign::Equal),
        ("!", Sign::Unequal),
        ("", Sign::Equal),
    ];
    let wrong = || format!("\"{text}\" is no version such as >=14.0.0");
    let found = SIGNS
        .iter()
        .find_map(|(word, sign)| Some((text.strip_prefix(word)?, *sign)));
    let (version, sign) = found.ok_or_else(wrong)?;
    let parts: Option<Vec<u32>> = version.split('.').map(|part| part.parse().ok()).collect();
    match parts.as_deref() {
        Some(&[major, minor, patch]) => Ok((sign, (major, minor, patch))),
        Some(&[major, minor]) => Ok((sign, (major, minor, 0))),
        Some(&[major]) => Ok((sign, (major, 0, 0))),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_held_against_ranges() {
        let check = |text: &str, version, has| {
            assert_eq!(
                Range::parse(text).unwrap().has(version),
                has,
                "{text} {version:?}"
            );
        };
        check(">=10.0.0 <13.0.0", (12, 9, 0), true);
        check(">=10.0.0 <13.0.0", (13, 0, 0), false);
        check("<9.2.0 || >=14", (15, 0, 0), true);
        check("15.1.0", (15, 1, 0), true);
        check("!15.1", (15, 1, 0), false);
        for wrong in ["", ">=", "1.2.3.4", ">=10 ||", "v1"] {
            assert!(Range::parse(wrong).is_err(), "{wrong}");
        }
    }
}
