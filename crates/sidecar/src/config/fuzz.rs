//! What sources may send, and what templates made of it may do.

use podkit_foundation::fuzz::{Target, pieces};
use podkit_foundation::params::ParamType as _;

use super::set::{File, Limits, Set};
use super::source::{Form, etcd, http};
use super::template::{TemplateSpec, render};

const LIMITS: Limits = Limits {
    files: 100,
    bytes: 100_000,
};

pub(crate) const TARGETS: [Target; 4] = [
    Target {
        name: "etcd-watch",
        seeds: &[
            b"\x09{\"result\":{\"header\":{\"revision\":\"8\"},\"events\":[{\"kv\":{\"key\":\"YQ==\"}}]}}\n",
            b"\xff{\"result\":{\"canceled\":true,\"compact_revision\":\"9\"}}\n{\"error\":{}}\n",
        ],
        run: |bytes| {
            let mut lines = etcd::Lines::default();
            for piece in pieces(bytes) {
                lines.push(piece);
            }
        },
    },
    Target {
        name: "etcd-range",
        seeds: &[br#"{"header":{"revision":"7"},"kvs":[{"key":"YS9i","value":"MQ=="}]}"#],
        run: |bytes| {
            if let Ok(range) = serde_json::from_slice(bytes) {
                drop(etcd::read(&range, "a/", LIMITS));
            }
        },
    },
    Target {
        name: "config-body",
        seeds: &[br#"{"a": "1", "d/b": "2"}"#, b"\x1f\x8b\x08\0\0\0\0\0\0\xff"],
        run: |bytes| {
            for form in [Form::File, Form::Tar, Form::Map] {
                drop(http::read(bytes, form, "one", LIMITS));
            }
        },
    },
    Target {
        name: "template",
        seeds: &[
            b"{% for x in range(9) %}{{ x * 2 }}{% endfor %}{{ files['t'] | length }}",
            b"{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}{{ env.A }}",
        ],
        run: |bytes| {
            let mut set = Set::default();
            set.insert("t", File::new(bytes.to_vec()));
            let spec = TemplateSpec::parse("t=out").expect("it is one");
            drop(render(&[spec], &set, &[]));
        },
    },
];
