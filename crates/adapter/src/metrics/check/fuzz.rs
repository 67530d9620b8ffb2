//! Dashboards, rules and queries of whoever writes them.

use podkit_foundation::fuzz::Target;

use super::{files, promql};

pub(crate) const TARGETS: [Target; 2] = [
    Target {
        name: "dashboards",
        seeds: &[
            br#"{"title": "t", "panels": [{"title": "p", "targets": [{"expr": "rate(a_total[5m])"}]}], "templating": {"list": [{"query": "label_values(b, c)"}]}}"#,
            b"groups:\n- name: g\n  rules:\n  - {alert: A, expr: up == 0}\n  - {record: r, expr: sum(a)}\n",
        ],
        run: |bytes| drop(files::parse("file", &String::from_utf8_lossy(bytes))),
    },
    Target {
        name: "promql",
        seeds: &[
            br#"sum by (a) (rate(b_total{c=~"d.*", e!='f'}[5m] offset 1h)) / on(x) group_left g:h"#,
            br#"{__name__=~"a|b.*"} and $m_x > 1e3 # c"#,
            b"label_values(a{b=\"c\"}, d)",
        ],
        run: |bytes| {
            let query = String::from_utf8_lossy(bytes);
            for name in promql::names(&query).iter().chain(&promql::variable(&query)) {
                assert!(!name.is_empty());
            }
        },
    },
];
