//! What can be set, and nothing else: these declarations are the flags, the variables and the reference.

use std::path::PathBuf;
use std::time::Duration;

use podkit_foundation::params;
use podkit_foundation::params::Addr;

use super::spec::Spec;

params! {
    /// The parameters of `metrics`.
    pub(crate) struct Params {
        /// Where `/metrics` is served.
        listen: Addr { default: Some(":9721") },
        /// What is asked, at each scrape: `[NAME=]SCHEME://HOST:PORT[/PATH][;KEY=VALUE]`; repeatable.
        ///
        /// NAME becomes the label `source` of its samples; two sources of one kind need one. Every source takes
        /// `;timeout=2s`, which is its own --source-timeout.
        source: Vec<Spec> {},
        /// What `/probe?target=SCHEME://HOST:PORT/PATH` may ask, and as whom: a YAML list of `match`, `module` and a source's keys.
        ///
        /// In `match`, `*` is any text without `/`. The first entry that matches is used; of those with a `module`, when the request
        /// has `&module=` with it. What matches none is answered 403. Read again on SIGHUP.
        targets_file: Option<PathBuf> {},
        /// Targets whose connections are kept; of more, the one that was not asked for the longest time is forgotten.
        max_targets: u32 { default: Some("1000"), bounds: Some((1, 100_000)) },
        /// How long the connection and the last values of a target that nobody asks about are kept.
        target_idle: Duration { default: Some("5m"), bounds: Some((1_000, 86_400_000)) },
        /// How long a source's first answer may take; then it counts as down for this scrape, which has its last values.
        source_timeout: Duration { default: Some("750ms"), bounds: Some((1, 600_000)) },
        /// How long a source that answers may take for all of it.
        ///
        /// It goes on when the scrape that began it has ended, and the next one has what it said.
        collect_timeout: Duration { default: Some("30s"), bounds: Some((1, 3_600_000)) },
        /// How long the values of a source that does not answer are shown, with their age beside them.
        max_age: Duration { default: Some("5m"), bounds: Some((0, 86_400_000)) },
        /// How long a scrape may take when the scraper does not say (X-Prometheus-Scrape-Timeout-Seconds).
        scrape_timeout: Duration { default: Some("10s"), bounds: Some((100, 600_000)) },
        /// Names keep the rules of `promtool check metrics`: what counts ends in _total, and nothing else does; times are in seconds.
        ///
        /// Without it they are those of the usual exporters, which dashboards know.
        strict_names: bool { default: Some("false") },
        /// Names the metrics of these Grafana dashboards (JSON) and Prometheus rules (YAML) that would be missing, and exits; repeatable.
        ///
        /// A metric is there when a `--source` has it or its kind can have it, when it is in `--check-names`, or when one of the files
        /// records it. Exit code 1 when some are missing.
        check_dashboards: Vec<PathBuf> {},
        /// More names for `--check-dashboards`: a file with a name a line, such as what another exporter serves; repeatable.
        check_names: Vec<PathBuf> {},
    }
}
