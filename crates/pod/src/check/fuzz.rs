//! A manifest, from its bytes to what is said of it.

use podkit_foundation::fuzz::Target;

use super::{Commands, judge};
use crate::manifest;
use crate::plan::Options;

pub(crate) const TARGET: Target = Target {
    name: "manifest",
    seeds: &[
        include_bytes!("../../../../examples/legacy-web/pod.yaml"),
        b"{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i:1}]}}",
        b"apiVersion: v1\nkind: List\nitems:\n- &a {kind: Secret, apiVersion: v1, metadata: {name: s}}\n- *a\n---\n",
    ],
    run: |bytes| {
        let (documents, findings) = manifest::parse("file", bytes);
        judge(&documents, findings, &Options::default(), Commands::default());
    },
};
