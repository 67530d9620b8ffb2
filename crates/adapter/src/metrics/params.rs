//! What can be set, and nothing else: these declarations are the flags, the variables and the reference.

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
        /// Names keep the rules of `promtool check metrics`: what counts ends in _total, and nothing else does.
        ///
        /// Without it they are those of the usual exporters, which dashboards know.
        strict_names: bool { default: Some("false") },
    }
}
