//! `jvm_…` and `process_…`, as jmx_exporter's agent has them of the JVM that it is in.

use serde_json::{Map, Value};

use super::names::Name;
use super::rules::unquoted;
use super::shown;
use crate::metrics::batch::{Batch, Kind, Line};

/// What is read for them.
pub(super) const BEANS: [&str; 9] = [
    "java.lang:type=Memory",
    "java.lang:type=MemoryPool,*",
    "java.lang:type=GarbageCollector,*",
    "java.lang:type=Threading",
    "java.lang:type=ClassLoading",
    "java.lang:type=Runtime",
    "java.lang:type=OperatingSystem",
    "java.lang:type=Compilation",
    "java.nio:type=BufferPool,*",
];

type Bean<'a> = (&'a str, &'a Map<String, Value>);

/// Type of the bean, attribute, factor, the metric, its kind, its help.
type Row = (
    &'static str,
    &'static str,
    f64,
    &'static str,
    Kind,
    &'static str,
);

const ROWS: [Row; 13] = [
    (
        "Threading",
        "ThreadCount",
        1.0,
        "jvm_threads_current",
        Kind::Gauge,
        "Current thread count of a JVM",
    ),
    (
        "Threading",
        "DaemonThreadCount",
        1.0,
        "jvm_threads_daemon",
        Kind::Gauge,
        "Daemon thread count of a JVM",
    ),
    (
        "Threading",
        "PeakThreadCount",
        1.0,
        "jvm_threads_peak",
        Kind::Gauge,
        "Peak thread count of a JVM",
    ),
    (
        "Threading",
        "TotalStartedThreadCount",
        1.0,
        "jvm_threads_started_total",
        Kind::Counter,
        "Started thread count of a JVM",
    ),
    (
        "ClassLoading",
        "LoadedClassCount",
        1.0,
        "jvm_classes_currently_loaded",
        Kind::Gauge,
        "The number of classes that are currently loaded in the JVM",
    ),
    (
        "ClassLoading",
        "TotalLoadedClassCount",
        1.0,
        "jvm_classes_loaded_total",
        Kind::Counter,
        "The total number of classes that have been loaded since the JVM has started execution",
    ),
    (
        "ClassLoading",
        "UnloadedClassCount",
        1.0,
        "jvm_classes_unloaded_total",
        Kind::Counter,
        "The total number of classes that have been unloaded since the JVM has started execution",
    ),
    (
        "Memory",
        "ObjectPendingFinalizationCount",
        1.0,
        "jvm_memory_objects_pending_finalization",
        Kind::Gauge,
        "The number of objects waiting in the finalizer queue.",
    ),
    (
        "Compilation",
        "TotalCompilationTime",
        1e-3,
        "jvm_compilation_time_seconds_total",
        Kind::Counter,
        "The total time in seconds taken for HotSpot class compilation",
    ),
    (
        "Runtime",
        "StartTime",
        1e-3,
        "process_start_time_seconds",
        Kind::Gauge,
        "Start time of the process since unix epoch in seconds.",
    ),
    (
        "OperatingSystem",
        "ProcessCpuTime",
        1e-9,
        "process_cpu_seconds_total",
        Kind::Counter,
        "Total user and system CPU time spent in seconds.",
    ),
    (
        "OperatingSystem",
        "OpenFileDescriptorCount",
        1.0,
        "process_open_fds",
        Kind::Gauge,
        "Number of open file descriptors.",
    ),
    (
        "OperatingSystem",
        "MaxFileDescriptorCount",
        1.0,
        "process_max_fds",
        Kind::Gauge,
        "Maximum number of open file descriptors.",
    ),
];

const MEMORY: [(&str, &str); 4] = [
    ("used", "used_bytes"),
    ("committed", "committed_bytes"),
    ("max", "max_bytes"),
    ("init", "init_bytes"),
];

/// Adds what the beans say.
pub(super) fn put(beans: &[Bean<'_>], batch: &mut Batch) {
    for (name, attributes) in beans {
        let Some(name) = Name::parse(name) else {
            continue;
        };
        let of = name.property("type").unwrap_or_default();
        let called = unquoted(name.property("name").unwrap_or_default());
        let number = |attribute: &str| attributes.get(attribute).and_then(Value::as_f64);
        for (_, attribute, factor, metric, kind, help) in ROWS.iter().filter(|row| row.0 == of) {
            if let Some(value) = number(attribute) {
                batch.family(metric, *kind, *help).put(&[], value * factor);
            }
        }
        match of {
            "Memory" => {
                for (attribute, area) in [
                    ("HeapMemoryUsage", "heap"),
                    ("NonHeapMemoryUsage", "nonheap"),
                ] {
                    usage(
                        attributes.get(attribute),
                        "jvm_memory_",
                        ("area", area),
                        batch,
                    );
                }
            }
            "MemoryPool" => {
                let pool = ("pool", called.as_str());
                usage(attributes.get("Usage"), "jvm_memory_pool_", pool, batch);
                let collected = attributes.get("CollectionUsage");
                usage(collected, "jvm_memory_pool_collection_", pool, batch);
            }
            "GarbageCollector" => {
                let labels = [("gc", called.as_str())];
                let help = "Time spent in a given JVM garbage collector in seconds.";
                let family = batch.family("jvm_gc_collection_seconds", Kind::Summary, help);
                let (count, sum) = (number("CollectionCount"), number("CollectionTime"));
                if let (Some(count), Some(sum)) = (count, sum) {
                    family.put_line(Line::Count, &labels, count);
                    family.put_line(Line::Sum, &labels, sum * 1e-3);
                }
            }
            "BufferPool" => {
                for (attribute, metric) in [
                    ("MemoryUsed", "jvm_buffer_pool_used_bytes"),
                    ("TotalCapacity", "jvm_buffer_pool_capacity_bytes"),
                    ("Count", "jvm_buffer_pool_used_buffers"),
                ] {
                    if let Some(value) = number(attribute) {
                        let family = batch.family(metric, Kind::Gauge, "Of a JVM buffer pool.");
                        family.put(&[("pool", &called)], value);
                    }
                }
            }
            "Runtime" => {
                let text = |key: &str| attributes.get(key).map(shown).unwrap_or_default();
                let (runtime, vendor) = (text("SpecName"), text("VmVendor"));
                let version = text("VmVersion");
                let labels = [
                    ("runtime", runtime.as_str()),
                    ("vendor", vendor.as_str()),
                    ("version", version.as_str()),
                ];
                let family = batch.family("jvm_runtime_info", Kind::Gauge, "JVM runtime info");
                family.put(&labels, 1.0);
            }
            _ => {}
        }
    }
}

fn usage(value: Option<&Value>, begin: &str, label: (&str, &str), batch: &mut Batch) {
    for (key, end) in MEMORY {
        if let Some(value) = value.and_then(|value| value[key].as_f64()) {
            let help = "Of the memory of a JVM.";
            let family = batch.family(&format!("{begin}{end}"), Kind::Gauge, help);
            family.put(&[label], value);
        }
    }
}
