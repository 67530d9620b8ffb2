use proptest::prelude::*;

use super::ids::{Ids, lines, mapped, names, ranges};
use super::refusal::explain;

#[track_caller]
fn check(text: &str, expected: &[(u32, u32)]) {
    assert_eq!(
        ranges(text, &["joe".into(), "joseph".into()], 1000),
        expected
    );
}

#[test]
fn ranges_by_name_and_by_number() {
    check("", &[]);
    check("joe:100000:65536\n", &[(100_000, 65_536)]);
    check("1000:100000:65536", &[(100_000, 65_536)]);
    check("jo:1:2\njoe2:1:2\n10000:1:2\n", &[]);
    check(
        "# joe\njoseph:5:6\nann:7:8\n1000:9:10\n",
        &[(5, 6), (9, 10)],
    );
    for broken in [
        "joe",
        "joe:1",
        "joe:x:2",
        "joe:1:0",
        "joe:-1:2",
        "joe:4294967295:1",
    ] {
        check(broken, &[]);
    }
}

#[test]
fn names_of_a_user() {
    let passwd = "root:x:0:0::/root:/bin/sh\njoe:x:1000:1000::/:\nbroken\njoseph:x:1000:1::/:\n:x:1000:1::/:\n";
    assert_eq!(names(passwd, 1000), ["joe", "joseph"]);
    assert_eq!(names(passwd, 1), Vec::<String>::new());
}

#[test]
fn the_user_is_root_and_the_ranges_follow() {
    assert_eq!(lines(1000, &[]), [[0, 1000, 1]]);
    assert_eq!(
        lines(1000, &[(100_000, 65_536), (7, 3)]),
        [[0, 1000, 1], [1, 100_000, 65_536], [65_537, 7, 3]]
    );
    assert_eq!(lines(1000, &[(1, u32::MAX - 1), (7, 3)]).len(), 2);
}

#[test]
fn ids_that_are_there() {
    let ids = Ids::of("0 1000 1\n1 100000 65536\n", "0 1000 1", false);
    assert!(ids.has_user(0) && ids.has_user(1) && ids.has_user(65_536));
    assert!(!ids.has_user(65_537) && ids.has_group(0) && !ids.has_group(1));
    assert_eq!(
        Ids::of("", "1 100000 65536\n0 1000 1\n70000 7 1", true).last_group(),
        65_536
    );
    let all = Ids::of("0 0 4294967295", "0 0 4294967295", true);
    assert!(all.has_user(u32::MAX - 1) && !all.has_user(u32::MAX));
    assert_eq!(mapped("0 0 0\n1 2\nx y z\n4294967295 0 2\n"), []);
}

#[test]
fn a_refusal_names_the_setting() {
    let with = |path: &'static str, value: &'static str| {
        move |asked: &str| (asked == path).then(|| format!("{value}\n"))
    };
    let check = |errno, path, value, part: &str| {
        let said = explain(errno, &with(path, value));
        assert!(said.contains(part) && !said.contains('\n'), "{said}");
    };
    let limit = "/proc/sys/user/max_user_namespaces";
    check(
        libc::ENOSPC,
        limit,
        "0",
        "sysctl user.max_user_namespaces is 0",
    );
    check(
        libc::ENOSPC,
        limit,
        "7",
        "user.max_user_namespaces (7) is used up",
    );
    let debian = "/proc/sys/kernel/unprivileged_userns_clone";
    check(
        libc::EPERM,
        debian,
        "0",
        "kernel.unprivileged_userns_clone=1",
    );
    check(libc::EPERM, debian, "1", "a policy forbids");
    let ubuntu = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
    check(
        libc::EACCES,
        ubuntu,
        "1",
        "kernel.apparmor_restrict_unprivileged_userns=0",
    );
    check(libc::EINVAL, "", "", "CONFIG_USER_NS");
    check(libc::ENOMEM, "", "", "memory");
}

proptest! {
    /// Whatever the files hold: no panic, and nothing beyond the ids that there are.
    #[test]
    fn any_text(text in "([a-z0-9:# \n-]|joe:|4294967295){0,200}", uid: u32) {
        for (start, count) in ranges(&text, &["joe".into()], uid) {
            prop_assert!(count > 0 && start.checked_add(count).is_some());
        }
        let all = ranges(&text, &["joe".into()], uid);
        for [inside, _, count] in lines(uid, &all) {
            prop_assert!(inside.checked_add(count).is_some());
        }
        for ids in mapped(&text) {
            prop_assert!(ids.start() <= ids.end());
        }
    }
}
