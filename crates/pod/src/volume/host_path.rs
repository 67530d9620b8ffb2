//! What `hostPath.type` promises, checked and, for the two `…OrCreate`, made true. (Kubernetes: pkg/volume/hostpath)

use std::fs::{self, DirBuilder, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::VolumeError;
use crate::plan::HostPathType;

/// Links are followed, as the kubelet does. An untyped path that is not there becomes a directory: so container
/// runtimes treat what they are told to bind.
pub(super) fn check(volume: &str, path: &Path, expect: HostPathType) -> Result<(), VolumeError> {
    let io = |doing: &str| VolumeError::io(volume, format!("{doing} {}", path.display()));
    let found = match fs::metadata(path) {
        Ok(found) => Some(found.file_type()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(io("looking at")(error)),
    };
    let found = match (found, expect) {
        (None, HostPathType::Unset | HostPathType::DirectoryOrCreate) => {
            let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
            return made.map_err(io("making"));
        }
        (None, HostPathType::FileOrCreate) => {
            let made = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o644)
                .open(path);
            return made.map(drop).map_err(io("making"));
        }
        (found, _) => found,
    };
    let is = |right: fn(&FileType) -> bool| found.as_ref().is_some_and(right);
    let (right, expected) = match expect {
        HostPathType::Unset => (true, ""),
        HostPathType::Directory | HostPathType::DirectoryOrCreate => {
            (is(FileType::is_dir), "a directory")
        }
        HostPathType::File | HostPathType::FileOrCreate => (is(FileType::is_file), "a file"),
        HostPathType::Socket => (is(FileTypeExt::is_socket), "a socket"),
        HostPathType::CharDevice => (is(FileTypeExt::is_char_device), "a character device"),
        HostPathType::BlockDevice => (is(FileTypeExt::is_block_device), "a block device"),
    };
    if right {
        return Ok(());
    }
    Err(VolumeError::HostPathType {
        volume: volume.to_string(),
        path: path.display().to_string(),
        expected,
    })
}
