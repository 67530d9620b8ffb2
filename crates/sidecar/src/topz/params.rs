//! What can be set, and nothing else: these declarations are the flags, the variables and the reference.

use std::path::PathBuf;
use std::time::Duration;

use podkit_foundation::params;
use podkit_foundation::params::{Addr, Size};

params! {
    /// The parameters of `topz`.
    pub struct Params {
        /// Where the page, the text table and the JSON are served.
        ///
        /// When its port is that of the admin address, which is so by default, the admin server serves them
        /// there, to peers on the pod's loopback only. Processes are nobody else's business: think before
        /// naming an address that others reach.
        listen: Addr { default: Some("127.0.0.1:9604") },
        /// The time between two looks at the processes.
        ///
        /// A look that is itself slow stretches it: topz rests at least ten times as long as a look took.
        interval: Duration { default: Some("1s"), bounds: Some((100, 60_000)) },
        /// How far back the history goes.
        history: Duration { default: Some("10m"), bounds: Some((1_000, 86_400_000)) },
        /// The memory that the history may take.
        ///
        /// When it is reached the oldest looks go first: the history gets shorter than `--history` says, and
        /// the page and the metrics say how long it is. The present look is always kept.
        history_memory: Size { default: Some("16Mi"), bounds: Some((262_144, 4_294_967_296)) },
        /// Processes watched at most; those with the highest process ids beyond it are counted, not watched.
        max_processes: u32 { default: Some("10000"), bounds: Some((1, 1_000_000)) },
        /// The file in which the pod's runner says which container has which first process.
        ///
        /// It need not be there: then containers are told apart by cgroup.
        pod_state: PathBuf { default: Some("/run/podkit/pod.json") },
    }
}
