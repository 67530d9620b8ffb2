//! The pod's way out of the machine: an interface (`veth`) and what all pods have in common (`firewall`).
//!
//! Pods reach each other by the machine's routes, the machine by 10.87.0.1 and its own addresses, everything else
//! masqueraded. What is common is made by the first pod and goes with the last; a lock on the directory of the addresses
//! keeps the two apart, and tells which pods live: what belongs to an address that nobody holds is a dead pod's.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::PodNet;
use super::address::{AddressLease, is_held};
use super::firewall;
use super::link::Route;
use super::nft::Nft;
use super::pasta::{Namespaces, Pasta};
use super::veth::{Veth, address_of};

/// How long another supervisor may look after what is common. It takes a millisecond.
const LOCK_MAX: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// Why a pod has no way out, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoEgress(String);

impl NoEgress {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

/// A pod's way out. Dropping it takes it away, which blocks for some milliseconds.
#[derive(Debug)]
pub struct Egress {
    /// Taken away by its own end.
    _way: Way,
}

#[derive(Debug)]
enum Way {
    Routed { _routed: Routed },
    Pasta { _pasta: Pasta },
}

/// Root's: through the machine's routing and packet filter.
#[derive(Debug)]
struct Routed {
    /// Taken first: the last one with an interface takes the rest away.
    veth: Option<Veth>,
    /// Where the pods' addresses are held.
    addresses: PathBuf,
}

impl Egress {
    /// Gives the pod an interface, its address, and the machine what it needs to route for it. Gives what may be in the
    /// way all the same, a line each. To be called by a thread that is in the machine's network namespace; blocks for a
    /// millisecond or two.
    pub fn veth(
        net: &PodNet,
        netns: BorrowedFd<'_>,
        lease: &AddressLease,
    ) -> Result<(Self, Vec<String>), NoEgress> {
        let no_socket = |error: io::Error| NoEgress::new(format!("opening rtnetlink: {error}"));
        let mut machine = Route::open().map_err(no_socket)?;
        let mut pod = net.route().map_err(no_socket)?;
        let address = net.address();
        let veth = Veth::make(&mut machine, &mut pod, netns, address)?;
        let clash = veth.clash.as_ref().map(|interface| {
            format!(
                "the pod's address {address} is of a network that this machine reaches by {interface}: \
                 that one host is out of reach while the pod runs"
            )
        });
        let mut warnings = Vec::from_iter(clash);
        let routed = Routed {
            veth: Some(veth),
            addresses: lease.dir().to_owned(),
        };
        // After the interface is there: who looks for pods under the lock finds it.
        let opened = Lock::take(&routed.addresses)
            .and_then(|_lock| firewall::open(&mut Nft::open()?, &mut machine));
        match opened {
            Ok(more) => warnings.extend(more),
            Err(error) => warnings.push(format!(
                "the pod reaches nothing beyond this machine: {}",
                no_firewall(&error)
            )),
        }
        let way = Way::Routed { _routed: routed };
        Ok((Self { _way: way }, warnings))
    }

    /// The same for an unprivileged user, by the program pasta. Blocks for some tens of milliseconds.
    pub fn pasta(net: &PodNet, namespaces: Namespaces<'_>) -> Result<Self, NoEgress> {
        let pasta = Pasta::start(namespaces, net.address())?;
        let way = Way::Pasta { _pasta: pasta };
        Ok(Self { _way: way })
    }
}

impl Drop for Routed {
    fn drop(&mut self) {
        drop(self.veth.take());
        if let Err(error) = close_after_the_last(&self.addresses) {
            tracing::warn!(%error, "what pods have in common was not taken away");
        }
    }
}

/// Takes away what pods that were killed have left, unless another pod needs it. `addresses` is where addresses are held.
pub fn sweep(addresses: &Path) {
    if let Err(error) = close_after_the_last(addresses) {
        tracing::debug!(%error, "nothing of dead pods' ways out was taken away");
    }
}

fn close_after_the_last(addresses: &Path) -> io::Result<()> {
    let _lock = Lock::take(addresses)?;
    let lives = |name: &str| address_of(name).is_some_and(|address| is_held(addresses, address));
    let links = Route::open()?.links()?;
    if links.iter().any(|link| lives(&link.name)) {
        return Ok(());
    }
    firewall::close(&mut Nft::open()?)
}

/// Whoever holds it begins to need what pods have in common, or looks whether anybody does.
struct Lock {
    _dir: File,
}

impl Lock {
    fn take(dir: &Path) -> io::Result<Self> {
        let dir = File::open(dir)?;
        let end = Instant::now() + LOCK_MAX;
        loop {
            match flock(dir.as_fd(), FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) if Instant::now() < end => std::thread::sleep(LOCK_PAUSE),
                // Its holder has been stopped. To go on is the lesser evil.
                Ok(()) | Err(Errno::WOULDBLOCK) => return Ok(Self { _dir: dir }),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

pub(super) fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn no_firewall(error: &io::Error) -> String {
    let absent = [Errno::PROTONOSUPPORT, Errno::OPNOTSUPP, Errno::NOENT];
    if is(error, Errno::PERM) || is(error, Errno::ACCESS) {
        "this user may not change the packet filter (CAP_NET_ADMIN)".to_owned()
    } else if absent.into_iter().any(|errno| is(error, errno)) {
        "the kernel has no nf_tables with masquerading (modules nf_tables, nft_chain_nat, nft_masq)"
            .to_owned()
    } else {
        format!("setting up the packet filter: {error}")
    }
}
