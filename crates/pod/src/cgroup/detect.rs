//! Which cgroup hierarchies this process may use, and where in them podkit's groups go.
//!
//! Each controller is looked at by itself: a machine may have memory on v1, nothing for the CPU, and an empty v2
//! beside them. Groups are made below the process's own cgroup, so that whatever limits podkit was started under
//! (a container, a systemd unit, a CI job) still hold for the pods.
//!
//! On v2 a cgroup that has processes can't hand controllers to children ("no internal processes", kernel
//! documentation `cgroup-v2.rst`), and podkit's own usually has some: its shell's. Then the nearest ancestor that can is taken.
//! Moving the processes that are already there, as container-in-container scripts do, was rejected: they aren't ours.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

/// The controllers that podkit uses.
pub(super) const WANTED: [&str; 3] = ["cpu", "memory", "pids"];

/// The interface generation of a hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// One hierarchy per controller or set of controllers.
    V1,
    /// The unified hierarchy.
    V2,
}

/// One mounted hierarchy and the directory in it below which `podkit/` is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    /// On v1 those it was mounted with; on v2 those of [`WANTED`] that can be had at `base`.
    pub(super) controllers: Vec<String>,
    /// Exists and may be written to.
    pub(super) base: PathBuf,
}

impl Hierarchy {
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }
}

/// What was found, and why the rest was not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// Hierarchies that can be used, v2 first.
    pub(super) usable: Vec<Hierarchy>,
    /// Whether a hierarchy is mounted at all, of either version (for the text of a warning).
    pub(super) mounted: bool,
    /// `cgroup.procs` of a group that this process is in.
    pub(super) own_procs: Option<PathBuf>,
    /// A v2 controller that exists but can't be handed down, or a v1 directory that isn't ours to write.
    pub(super) obstacles: Vec<(String, String)>,
}

/// Reads `/proc/self/mountinfo` and `/proc/self/cgroup` (their contents are the arguments); `root` is put before every
/// mount point (`/`, or a test's directory).
pub(super) fn detect(mountinfo: &str, own: &str, root: &Path) -> Layout {
    let own = parse_own(own);
    let mut layout = Layout::default();
    for mount in mountinfo.lines().filter_map(parse_mount) {
        layout.mounted = true;
        let at = root.join(mount.point.strip_prefix("/").unwrap_or(&mount.point));
        let path = own
            .iter()
            .find(|(controllers, _)| match mount.version {
                Version::V2 => controllers.is_empty(),
                Version::V1 => controllers.iter().any(|c| mount.controllers.contains(c)),
            })
            .map_or("/", |(_, path)| *path);
        if layout.own_procs.is_none() {
            let own = relative(&mount, path).map(|own| at.join(own).join("cgroup.procs"));
            layout.own_procs = own.filter(|procs| writable(procs));
        }
        let found = match mount.version {
            Version::V1 => place_v1(&mount, &at, path),
            Version::V2 => place_v2(&mount, &at, path),
        };
        match found {
            // A hierarchy that is mounted twice counts once.
            Ok((hierarchy, obstacles)) => {
                if !layout.usable.iter().any(|known| {
                    known.version == hierarchy.version
                        && (known.version == Version::V2
                            || known.controllers == hierarchy.controllers)
                }) {
                    layout.usable.push(hierarchy);
                    layout.obstacles.extend(obstacles);
                }
            }
            Err(why) => {
                for controller in WANTED {
                    if mount.version == Version::V2
                        || mount.controllers.iter().any(|c| c == controller)
                    {
                        layout.obstacles.push((controller.to_string(), why.clone()));
                    }
                }
            }
        }
    }
    layout.usable.sort_by_key(|h| h.version == Version::V1);
    layout
}

struct Mount {
    version: Version,
    controllers: Vec<String>,
    /// The cgroup that the mount shows as its root.
    root: String,
    point: PathBuf,
}

/// One line of mountinfo (proc_pid_mountinfo(5)), when it is a cgroup's:
/// `id parent major:minor root point options [tags…] - type source super-options`.
fn parse_mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, point) = (left.next()?, left.next()?);
    let mut right = right.split(' ');
    let version = match right.next()? {
        "cgroup" => Version::V1,
        "cgroup2" => Version::V2,
        _ => return None,
    };
    let options = right.nth(1)?;
    let controllers = match version {
        Version::V2 => Vec::new(),
        Version::V1 => options
            .split(',')
            .filter(|o| !matches!(*o, "rw" | "ro"))
            .map(str::to_string)
            .collect(),
    };
    Some(Mount {
        version,
        controllers,
        root: unescape(root),
        point: PathBuf::from(unescape(point)),
    })
}

/// `\040` and its like, as mountinfo writes blanks.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let octal = rest
            .get(at + 1..at + 4)
            .and_then(|o| u8::from_str_radix(o, 8).ok());
        match octal {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// `/proc/self/cgroup`: `id:controllers:path`; v2 is `0::path`.
fn parse_own(text: &str) -> Vec<(Vec<String>, &str)> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?;
            let path = parts.next()?;
            let controllers = controllers
                .split(',')
                .filter(|c| !c.is_empty())
                .map(str::to_string)
                .collect();
            Some((controllers, path))
        })
        .collect()
}

/// The own cgroup relative to what the mount shows; none when it lies outside (a bind mount of another part, a cgroup
/// namespace entered later), where the mount's root is the best that can be had.
fn relative(mount: &Mount, path: &str) -> Option<PathBuf> {
    let inside = Path::new(path).strip_prefix(&mount.root).ok()?;
    let leads_out = inside.components().any(|c| c.as_os_str() == "..");
    (!leads_out).then(|| inside.to_path_buf())
}

fn writable(dir: &Path) -> bool {
    accessat(CWD, dir, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

type Placed = Result<(Hierarchy, Vec<(String, String)>), String>;

fn place_v1(mount: &Mount, at: &Path, path: &str) -> Placed {
    let own = at.join(relative(mount, path).unwrap_or_default());
    let base = if own.is_dir() { own } else { at.to_path_buf() };
    if !writable(&base) {
        return Err(format!("{} may not be written to", base.display()));
    }
    let hierarchy = Hierarchy {
        version: Version::V1,
        controllers: mount.controllers.clone(),
        base,
    };
    Ok((hierarchy, Vec::new()))
}

fn place_v2(mount: &Mount, at: &Path, path: &str) -> Placed {
    let mut best: Option<Hierarchy> = None;
    let mut offered: Vec<String> = Vec::new();
    let relative = relative(mount, path).unwrap_or_default();
    for step in relative.ancestors() {
        let base = at.join(step);
        let kind = std::fs::read_to_string(base.join("cgroup.type"));
        let threaded = kind.as_ref().is_ok_and(|k| k.contains("threaded"));
        if !base.is_dir() || threaded || !writable(&base) {
            continue;
        }
        let available = words(&base, "cgroup.controllers");
        let enabled = words(&base, "cgroup.subtree_control");
        // Only the root of the hierarchy has no type, and only it may have processes beside controllers.
        let busy = kind.is_ok() && !words(&base, "cgroup.procs").is_empty();
        let controllers: Vec<String> = if busy { &enabled } else { &available }
            .iter()
            .filter(|c| WANTED.contains(&c.as_str()))
            .cloned()
            .collect();
        offered.extend(available);
        if best
            .as_ref()
            .is_none_or(|b| b.controllers.len() < controllers.len())
        {
            best = Some(Hierarchy {
                version: Version::V2,
                controllers,
                base,
            });
        }
    }
    let best = best.ok_or_else(|| format!("{} may not be written to", at.display()))?;
    let obstacles = WANTED
        .iter()
        .filter(|c| !best.has(c) && offered.iter().any(|o| o == *c))
        .map(|c| {
            (
                c.to_string(),
                format!(
                    "{} holds processes, so cgroup v2 can't hand the controller down; start podkit in a delegated cgroup of its own \
                     (systemd-run -p Delegate=yes)",
                    best.base.display()
                ),
            )
        })
        .collect();
    Ok((best, obstacles))
}

/// The words of a control file; none when it can't be read.
pub(super) fn words(dir: &Path, file: &str) -> Vec<String> {
    std::fs::read_to_string(dir.join(file))
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_string)
        .collect()
}
