//! What is told of the lines themselves, by statsd_exporter's names where it has them.

use super::line::{Kind, Reason};
use crate::metrics::batch::{Batch, Kind as Type};

/// Sums since the start.
#[derive(Debug, Default, Clone)]
pub(super) struct Counts {
    pub(super) lines: u64,
    /// Lines of which something was not counted.
    pub(super) bad_lines: u64,
    pub(super) events: u64,
    pub(super) service_checks: u64,
    pub(super) samples: u64,
    /// By reason.
    pub(super) errors: [u64; Reason::ALL.len()],
    /// Samples that went to a series.
    pub(super) counters: u64,
    pub(super) gauges: u64,
    pub(super) observers: u64,
    pub(super) sets: u64,
    pub(super) mapped: u64,
    pub(super) dropped: u64,
    pub(super) unmapped: u64,
    pub(super) negative: u64,
    pub(super) empty_name: u64,
    pub(super) tagged: u64,
    pub(super) tag_errors: u64,
    pub(super) overflow: Overflow,
    pub(super) expired: u64,
    pub(super) udp_packets: u64,
    pub(super) unixgram_packets: u64,
    pub(super) tcp_connections: u64,
    pub(super) tcp_errors: u64,
    pub(super) tcp_refused: u64,
    pub(super) tcp_too_long: u64,
    pub(super) loads: u64,
    pub(super) failed_loads: u64,
}

/// Samples of series that there was no room for.
#[derive(Debug, Default, Clone)]
pub(super) struct Overflow {
    pub(super) counters: u64,
    pub(super) gauges: u64,
    pub(super) observers: u64,
    pub(super) sets: u64,
    /// What the counters' came to.
    pub(super) sum: super::cell::Counter,
}

impl Counts {
    pub(super) fn error(&mut self, reason: Reason) {
        self.errors[reason as usize] += 1;
    }

    pub(super) fn counted(&mut self, kind: Kind, count: u64) {
        *match kind {
            Kind::Counter => &mut self.counters,
            Kind::Gauge => &mut self.gauges,
            Kind::Timer | Kind::Observed => &mut self.observers,
            Kind::Set => &mut self.sets,
        } += count;
    }

    #[expect(clippy::too_many_lines, reason = "a list")]
    pub(super) fn show(&self, batch: &mut Batch) {
        put(
            batch,
            "statsd_exporter_lines_total",
            "The total number of StatsD lines received.",
            "",
            &[("", self.lines)],
        );
        put(
            batch,
            "podkit_metrics_statsd_bad_lines_total",
            "Lines of which a sample, or all, could not be read.",
            "",
            &[("", self.bad_lines)],
        );
        put(
            batch,
            "podkit_metrics_statsd_skipped_lines_total",
            "Events and service checks of DogStatsD, which are no metrics.",
            "kind",
            &[
                ("event", self.events),
                ("service_check", self.service_checks),
            ],
        );
        put(
            batch,
            "statsd_exporter_samples_total",
            "The total number of StatsD samples received.",
            "",
            &[("", self.samples)],
        );
        let errors = Reason::ALL.map(|reason| (reason.word(), self.errors[reason as usize]));
        put(
            batch,
            "statsd_exporter_sample_errors_total",
            "The total number of errors parsing StatsD samples.",
            "reason",
            &errors,
        );
        put(
            batch,
            "statsd_exporter_events_total",
            "The total number of StatsD events seen.",
            "type",
            &[
                ("counter", self.counters),
                ("gauge", self.gauges),
                ("observer", self.observers),
                ("set", self.sets),
            ],
        );
        put(
            batch,
            "statsd_exporter_events_actions_total",
            "The total number of StatsD events by action.",
            "action",
            &[("map", self.mapped), ("drop", self.dropped)],
        );
        put(
            batch,
            "statsd_exporter_events_unmapped_total",
            "The total number of StatsD events no mapping was found for.",
            "",
            &[("", self.unmapped)],
        );
        put(
            batch,
            "statsd_exporter_events_error_total",
            "The total number of StatsD events discarded due to errors.",
            "reason",
            &[
                ("illegal_negative_counter", self.negative),
                ("empty_metric_name", self.empty_name),
            ],
        );
        put(
            batch,
            "statsd_exporter_tags_total",
            "The total number of DogStatsD tags processed.",
            "",
            &[("", self.tagged)],
        );
        put(
            batch,
            "statsd_exporter_tag_errors_total",
            "The number of errors parsing DogStatsD tags.",
            "",
            &[("", self.tag_errors)],
        );
        let over = &self.overflow;
        put(
            batch,
            "podkit_metrics_statsd_overflow_samples_total",
            "Samples of new series that max-series had no room for.",
            "type",
            &[
                ("counter", over.counters),
                ("gauge", over.gauges),
                ("observer", over.observers),
                ("set", over.sets),
            ],
        );
        batch.counter(
            "podkit_metrics_statsd_overflow_value_total",
            "The sum of the counters' samples among them.",
            over.sum.value(),
        );
        put(
            batch,
            "podkit_metrics_statsd_expired_series_total",
            "Series that were forgotten after their ttl.",
            "",
            &[("", self.expired)],
        );
        put(
            batch,
            "statsd_exporter_udp_packets_total",
            "The total number of StatsD packets received over UDP.",
            "",
            &[("", self.udp_packets)],
        );
        put(
            batch,
            "statsd_exporter_unixgram_packets_total",
            "The total number of StatsD packets received over Unixgram.",
            "",
            &[("", self.unixgram_packets)],
        );
        put(
            batch,
            "statsd_exporter_tcp_connections_total",
            "The total number of TCP connections handled.",
            "",
            &[("", self.tcp_connections)],
        );
        put(
            batch,
            "statsd_exporter_tcp_connection_errors_total",
            "The number of errors encountered reading from TCP.",
            "",
            &[("", self.tcp_errors)],
        );
        put(
            batch,
            "podkit_metrics_statsd_tcp_refused_total",
            "TCP connections that were closed at once, since there were too many.",
            "",
            &[("", self.tcp_refused)],
        );
        put(
            batch,
            "statsd_exporter_tcp_too_long_lines_total",
            "The number of lines discarded due to being too long.",
            "",
            &[("", self.tcp_too_long)],
        );
        put(
            batch,
            "statsd_exporter_config_reloads_total",
            "The number of configuration reloads.",
            "outcome",
            &[("success", self.loads), ("failure", self.failed_loads)],
        );
    }
}

/// A family: a value for each value of a label, or one without any.
#[expect(clippy::cast_precision_loss, reason = "what is shown is a float")]
fn put(batch: &mut Batch, name: &str, help: &'static str, label: &str, values: &[(&str, u64)]) {
    let family = batch.family(name, Type::Counter, help);
    for (word, value) in values {
        let labels = [(label, *word)];
        family.put(&labels[..usize::from(!label.is_empty())], *value as f64);
    }
}
