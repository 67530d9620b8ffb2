//! Which address a pod gets: the same one at every start as long as nobody else has it.
//!
//! An address is held by a lock on a file of its name in the state directory. The lock goes with the process, so a
//! supervisor that was killed leaves nothing to clean up, and two that start at once can't both have it. A counter in one
//! allocation file was rejected: after a crash someone has to tell which entries are dead.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// The pods' network, a /16 that neither Podman's (10.88) nor the usual clusters' (10.244, 10.42) is.
pub(super) const NETWORK: [u8; 2] = [10, 87];
/// Hosts of a /16 without the network, the gateway and the broadcast address.
const FIRST: u32 = 2;
const LAST: u32 = 65_534;

/// An address that no other pod of this machine has while this value lives.
#[derive(Debug)]
pub struct AddressLease {
    address: Ipv4Addr,
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl AddressLease {
    /// Takes the address that the pod's name leads to, or the next free one. `dir` is the same for all pods of the
    /// machine; it is made when absent.
    pub fn take(dir: &Path, namespace: &str, pod: &str) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let count = LAST - FIRST + 1;
        let start = hash(namespace, pod) % count;
        for step in 0..count {
            let host = FIRST + (start + step) % count;
            let [high, low] = [(host >> 8) as u8, host as u8];
            let address = Ipv4Addr::new(NETWORK[0], NETWORK[1], high, low);
            let path = dir.join(address.to_string());
            if let Some(lock) = lock(&path)? {
                return Ok(Self {
                    address,
                    path,
                    _lock: lock,
                });
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            format!("all {count} addresses in {} are taken", dir.display()),
        ))
    }

    /// The address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Where the addresses are held.
    pub(super) fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }
}

/// Whether a pod that lives has the address.
pub(super) fn is_held(dir: &Path, address: Ipv4Addr) -> bool {
    let file = File::open(dir.join(address.to_string()));
    file.is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err())
}

impl Drop for AddressLease {
    fn drop(&mut self) {
        // Before the lock goes, so that the file removed is the one that is locked.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the address's lock file stays");
        }
    }
}

/// The file, locked; none when another process holds it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // Its last holder may have removed it between the open and the lock: then the lock is on nothing.
        let same = std::fs::metadata(path).is_ok_and(|now| {
            file.metadata()
                .is_ok_and(|locked| locked.ino() == now.ino() && locked.dev() == now.dev())
        });
        if same {
            return Ok(Some(file));
        }
    }
}

/// FNV-1a: the same in every build, which the standard hasher does not promise.
fn hash(namespace: &str, pod: &str) -> u32 {
    let bytes = namespace.bytes().chain([b'/']).chain(pod.bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
