//! Targets of the fuzzer: what servers and files say, and what a scrape has of it.

use podkit_foundation::fuzz::Target;
use podkit_foundation::params::ParamType as _;
use podkit_foundation::telemetry::metrics::Format;

use super::batch::Batch;
use super::expose::{Style, expose};
use super::source::prometheus::text::{Dialect, read};
use super::spec::Spec;
use super::{check, source, targets};

/// All of the module.
pub(crate) fn targets() -> Vec<Target> {
    let mut all = source::fuzz_targets();
    all.extend([SOURCE, TARGETS_FILE]);
    all.extend(check::fuzz::TARGETS);
    all
}

/// Whatever a source said, its page is one: both formats, strictly read.
pub(crate) fn check_page(batch: &Batch) {
    for strict in [false, true] {
        for (format, dialect) in [
            (Format::Prometheus, Dialect::Plain),
            (Format::OpenMetrics, Dialect::Open),
        ] {
            let page = expose(&[("", batch)], Style { format, strict });
            let page = match (dialect, page.ends_with("# EOF\n")) {
                (Dialect::Open, false) => page + "# EOF\n",
                _ => page,
            };
            if let Err(why) = read(&page, dialect, &mut |_| {}) {
                panic!("{dialect:?} strict={strict}: {why}:\n{page}");
            }
        }
    }
}

const SOURCE: Target = Target {
    name: "metrics-source",
    seeds: &[
        b"web=nginx+https://[::1]:443/x;timeout=2s",
        b"redis://u@h:1/2;password-file=/f;keys=db0=a%2C*",
        b"nginx+http://unix:/run/n:/s?a=b",
        b"text+file:/x@y/*.prom",
        b"jmx+http://h/jolokia;rules=/r",
    ],
    run: |bytes| {
        if let Ok(spec) = Spec::parse(&String::from_utf8_lossy(bytes)) {
            // Without what is secret it is still a source.
            let shown = spec.to_string();
            let again = Spec::parse(&shown).map(|spec| spec.to_string());
            assert_eq!(again.as_deref(), Ok(&*shown));
        }
    },
};

const TARGETS_FILE: Target = Target {
    name: "metrics-targets",
    seeds: &[
        b"- match: redis://*.cache.svc:6379\n  password-file: /f\n- match: postgres://h/db\n  module: m\n  timeout: 2s\n",
    ],
    run: |bytes| targets::read_entries(&String::from_utf8_lossy(bytes)),
};
