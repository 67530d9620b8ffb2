//! Where the store is.

use std::path::{Path, PathBuf};

/// Where Kubernetes' node has `/var/lib/containerd`, root has `/var/lib/podkit/images`; somebody else a directory of theirs.
pub(super) fn place(state_dir: Option<&Path>) -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    chosen(
        state_dir,
        owns_machine(),
        variable("XDG_DATA_HOME").map(PathBuf::from),
        variable("HOME").map(PathBuf::from),
    )
}

fn chosen(
    state_dir: Option<&Path>,
    owns_machine: bool,
    data_home: Option<PathBuf>,
    home: Option<PathBuf>,
) -> PathBuf {
    if let Some(dir) = state_dir {
        return dir.join("lib/images");
    }
    if owns_machine {
        return "/var/lib/podkit/images".into();
    }
    // A relative one is to be ignored. (XDG Base Directory Specification)
    let data_home = data_home.filter(|path| path.is_absolute());
    let data_home = data_home.unwrap_or_else(|| {
        let home = home.unwrap_or_else(|| "/".into());
        home.join(".local/share")
    });
    data_home.join("podkit/images")
}

/// Root, and not only inside a user namespace: file systems' owners are the machine's. (user_namespaces(7), uid_map)
pub(crate) fn owns_machine() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let all = ["0", "0", "4294967295"];
    rustix::process::geteuid().is_root() && map.split_ascii_whitespace().eq(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let at = |state: Option<&str>, root, data: Option<&str>| {
            let path = |text: Option<&str>| text.map(PathBuf::from);
            chosen(
                state.map(Path::new),
                root,
                path(data),
                Some("/home/joe".into()),
            )
        };
        assert_eq!(at(Some("/s"), true, None), Path::new("/s/lib/images"));
        assert_eq!(
            at(None, true, Some("/d")),
            Path::new("/var/lib/podkit/images")
        );
        assert_eq!(at(None, false, Some("/d")), Path::new("/d/podkit/images"));
        for data in [None, Some("d")] {
            let home = Path::new("/home/joe/.local/share/podkit/images");
            assert_eq!(at(None, false, data), home);
        }
    }
}
