//! The numbers that the kubelet and the runtimes below it write for a container's `resources`.

/// Length of a CFS period in µs. (Kubernetes: `QuotaPeriod`.)
pub(super) const PERIOD_US: u64 = 100_000;
/// The kernel takes no quota below 1 ms. (Kubernetes: `MinQuotaPeriod`.)
const QUOTA_US_MIN: u64 = 1_000;
const SHARES_MIN: u64 = 2;
const SHARES_MAX: u64 = 262_144;

/// `cpu.cfs_quota_us` for a limit, per [`PERIOD_US`]. (Kubernetes: `MilliCPUToQuota`.)
pub(super) fn quota_us(milli: u64) -> u64 {
    (milli.saturating_mul(PERIOD_US) / 1000).max(QUOTA_US_MIN)
}

/// `cpu.shares` for a request; one without a request gets the least. (Kubernetes: `MilliCPUToShares`.)
pub(super) fn shares(milli: u64) -> u64 {
    (milli.saturating_mul(1024) / 1000).clamp(SHARES_MIN, SHARES_MAX)
}

/// `cpu.weight` for `cpu.shares`: the curve through (2, 1), (1024, 100) and (262144, 10000), so that the v1 default
/// meets the v2 default. (opencontainers/cgroups: `ConvertCPUSharesToCgroupV2Value`, since runc 1.3.2; the straight line
/// before it gave 1024 shares a weight of 39.)
pub(super) fn weight(shares: u64) -> u64 {
    if shares <= SHARES_MIN {
        return 1;
    }
    if shares >= SHARES_MAX {
        return 10_000;
    }
    // Exact in f64: shares are below 2^18.
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

/// How many tasks the machine can have: the least of `pid_max` and `threads-max`, which `read` gives. (sysctl/kernel.rst)
pub(super) fn tasks_max(read: impl Fn(&str) -> Option<u64>) -> u64 {
    let known = ["pid_max", "threads-max"].into_iter().filter_map(read);
    known.min().unwrap_or(PID_MAX_DEFAULT)
}

/// Of a kernel that says nothing. (proc_sys_kernel(5), pid_max)
const PID_MAX_DEFAULT: u64 = 32_768;
