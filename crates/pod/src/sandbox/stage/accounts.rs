//! `/etc/passwd` and `/etc/group` of a container's own root: the user's group, home and further groups.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;

use super::paths;
use crate::sandbox::error::Failed;
use crate::sandbox::wire::Identity;

/// Larger files are not read to their end.
const LIMIT: u64 = 1 << 20;

/// Who a process is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    /// The primary group; 0 when the image does not know the user (Kubernetes API: runAsGroup).
    pub(super) gid: u32,
    /// The home, `/` when unknown.
    pub(super) home: String,
    /// All groups, the primary one among them (CVE-2022-36109).
    pub(super) groups: Vec<u32>,
}

/// The user of a container, whose file system is `/` now.
pub(super) fn resolve(identity: &Identity) -> Result<Account, Failed> {
    let passwd = read("/etc/passwd");
    let uid = match (identity.uid, identity.image_user.as_deref()) {
        (Some(uid), _) => uid,
        (None, None | Some("")) => 0,
        (None, Some(user)) => uid_of(user, &passwd)?,
    };
    let group = match identity.groups_strict {
        true => String::new(),
        false => read("/etc/group"),
    };
    let mut account = account(uid, &passwd, &group);
    account.gid = identity.gid.unwrap_or(account.gid);
    // The image says how many there are: each is looked for in a set.
    let (mut groups, mut known) = (vec![account.gid], BTreeSet::from([account.gid]));
    let others = identity.groups.iter().chain(&account.groups);
    groups.extend(others.filter(|group| known.insert(**group)));
    account.groups = groups;
    Ok(account)
}

/// The user id that an image's `User` means.
pub(super) fn uid_of(user: &str, passwd: &str) -> Result<u32, Failed> {
    // The group is nobody's, see `ContainerStart::image_user`.
    let name = user.split(':').next().unwrap_or(user);
    match name.parse() {
        Ok(uid) => Ok(uid),
        Err(_) => uid_by_name(name, passwd).ok_or_else(|| Failed {
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

/// What the texts of the two files say about a user: its own group, and those that name it as a member. (passwd(5), group(5))
pub(super) fn account(uid: u32, passwd: &str, group: &str) -> Account {
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let user = passwd
        .lines()
        .map(fields)
        .find(|fields| fields.len() >= 6 && fields[2].parse() == Ok(uid));
    let Some(user) = user else {
        return Account {
            uid,
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
        uid,
        gid: user[3].parse().unwrap_or(0),
        home,
        groups,
    }
}
