//! Which ids a user namespace has, and which ranges a user may use. (user_namespaces(7), subuid(5))

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// The ids that exist in a user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ids {
    users: Vec<RangeInclusive<u32>>,
    groups: Vec<RangeInclusive<u32>>,
    /// Whether supplementary groups can be changed at all.
    pub(crate) setgroups: bool,
    /// Why there are not more, and what helps.
    why: String,
}

impl Ids {
    /// This process's. `lack`: why it got none but its own.
    pub(super) fn now(lack: Option<&str>) -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}"));
        let ids = |file| mapped(&read(file).unwrap_or_default());
        Self {
            users: ids("uid_map"),
            groups: ids("gid_map"),
            setgroups: !read("setgroups").is_ok_and(|text| text.trim() == "deny"),
            why: match lack {
                Some(lack) => format!("without root only id 0 is there: {lack}"),
                None => "the user namespace has no such id".to_owned(),
            },
        }
    }

    /// Whether a user id exists.
    pub(crate) fn has_user(&self, id: u32) -> bool {
        self.users.iter().any(|ids| ids.contains(&id))
    }

    /// Whether a group id exists.
    pub(crate) fn has_group(&self, id: u32) -> bool {
        self.groups.iter().any(|ids| ids.contains(&id))
    }

    /// Whether 0 is the only user.
    pub(crate) fn one_user(&self) -> bool {
        self.users == [0..=0]
    }

    /// The highest group id of those that follow each other from 0.
    pub(crate) fn last_group(&self) -> u32 {
        let mut last = 0;
        let mut groups = self.groups.clone();
        groups.sort_by_key(|ids| *ids.start());
        for ids in groups {
            if *ids.start() > last + 1 {
                break;
            }
            last = last.max(*ids.end());
        }
        last
    }

    /// Why an id is not there: the end of a line that names it.
    pub(crate) fn why(&self) -> &str {
        &self.why
    }

    /// A namespace with these users and groups.
    #[cfg(test)]
    pub(crate) fn of(users: &str, groups: &str, setgroups: bool) -> Self {
        Self {
            users: mapped(users),
            groups: mapped(groups),
            setgroups,
            why: "for a reason".to_owned(),
        }
    }
}

/// The ids inside, out of lines `INSIDE OUTSIDE COUNT`.
pub(super) fn mapped(text: &str) -> Vec<RangeInclusive<u32>> {
    let range = |line: &str| -> Option<RangeInclusive<u32>> {
        let mut numbers = line.split_ascii_whitespace();
        let inside: u32 = numbers.next()?.parse().ok()?;
        let count: u32 = numbers.nth(1)?.parse().ok()?;
        Some(inside..=inside.checked_add(count.checked_sub(1)?)?)
    };
    text.lines().filter_map(range).collect()
}

/// A user's ranges, start and count, out of the text of `/etc/subuid` or `/etc/subgid`: lines `OWNER:START:COUNT`, where the
/// owner is one of `names` or the number.
pub(super) fn ranges(text: &str, names: &[String], uid: u32) -> Vec<(u32, u32)> {
    let range = |line: &str| -> Option<(u32, u32)> {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let (start, count) = (fields.next()?, fields.next()?);
        let ours = names.iter().any(|name| name == owner) || owner.parse() == Ok(uid);
        let (start, count) = (start.trim().parse().ok()?, count.trim().parse().ok()?);
        // 4294967295 is no id.
        let last = u32::checked_add(start, count)?;
        (ours && count > 0 && last > start).then_some((start, count))
    };
    text.lines().filter_map(range).collect()
}

/// The names of a user id in the text of `/etc/passwd`.
pub(super) fn names(passwd: &str, uid: u32) -> Vec<String> {
    let name = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let same = fields.get(2).is_some_and(|field| field.parse() == Ok(uid));
        (same && !fields[0].is_empty()).then(|| fields[0].to_owned())
    };
    passwd.lines().filter_map(name).collect()
}

/// What is mapped: `inside outside count` of each range, id 0 inside being `own` outside and the ranges following it.
pub(super) fn lines(own: u32, ranges: &[(u32, u32)]) -> Vec<[u32; 3]> {
    let mut lines = vec![[0, own, 1]];
    let mut inside: u32 = 1;
    for (start, count) in ranges {
        // The ids inside are as few as those outside.
        let Some(next) = inside.checked_add(*count) else {
            break;
        };
        lines.push([inside, *start, *count]);
        inside = next;
    }
    lines
}
