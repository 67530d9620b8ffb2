//! `/etc/passwd` and `/etc/group` of a container's own root: the user's group, home and further groups.

use std::fs::File;
use std::io::Read;

use super::paths;

use crate::sandbox::error::Failed;

/// Larger files are not read to their end.
const LIMIT: u64 = 1 << 20;

/// What is known about a user id.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// Its primary group; 0 when the image does not know the user (Kubernetes API: runAsGroup).
    pub(super) gid: u32,
    /// Its home, `/` when unknown.
    pub(super) home: String,
    /// The groups that name it as a member.
    pub(super) groups: Vec<u32>,
}

/// Looks a user up in the file system that is `/` now.
pub(super) fn look_up(uid: u32) -> Account {
    account(uid, &read("/etc/passwd"), &read("/etc/group"))
}

/// The user id that an image's `User` means in the file system that is `/` now.
pub(super) fn uid_of(user: &str) -> Result<u32, Failed> {
    // The group is nobody's, see `ContainerStart::image_user`.
    let name = user.split(':').next().unwrap_or(user);
    match name.parse() {
        Ok(uid) => Ok(uid),
        Err(_) => uid_by_name(name, &read("/etc/passwd")).ok_or_else(|| Failed {
            step: format!("find the image's user {name:?} in its /etc/passwd"),
            errno: libc::ENOENT,
        }),
    }
}

/// By the text of the file. (passwd(5))
pub(super) fn uid_by_name(name: &str, passwd: &str) -> Option<u32> {
    let mut lines = passwd.lines().map(|line| line.split(':'));
    let mut fields = lines.find(|fields| fields.clone().next() == Some(name))?;
    fields.nth(2)?.parse().ok()
}

/// The text of a regular file, or nothing: an image need not have one, and may have anything in its place: a device, a FIFO,
/// a link to a neighbour's file in /proc.
fn read(path: &str) -> String {
    let Ok(file) = paths::root()
        .and_then(|root| paths::read(root, path))
        .map(File::from)
    else {
        return String::new();
    };
    let mut text = Vec::new();
    if file.metadata().is_ok_and(|metadata| metadata.is_file())
        && file.take(LIMIT).read_to_end(&mut text).is_err()
    {
        text.clear();
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The same from the texts of the two files. (passwd(5), group(5))
pub(super) fn account(uid: u32, passwd: &str, group: &str) -> Account {
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let user = passwd
        .lines()
        .map(fields)
        .find(|fields| fields.len() >= 6 && fields[2].parse() == Ok(uid));
    let Some(user) = user else {
        return Account {
            gid: 0,
            home: "/".into(),
            groups: Vec::new(),
        };
    };
    let groups = group
        .lines()
        .map(fields)
        .filter(|fields| fields.len() >= 4 && fields[3].split(',').any(|member| member == user[0]))
        .filter_map(|fields| fields[2].parse().ok())
        .collect();
    let home = if user[5].is_empty() {
        "/".into()
    } else {
        user[5].clone()
    };
    Account {
        gid: user[3].parse().unwrap_or(0),
        home,
        groups,
    }
}
