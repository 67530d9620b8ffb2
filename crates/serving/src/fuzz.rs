//! Targets of the fuzzer.

use podkit_foundation::fuzz::Target;

use crate::{chain, limit};

/// All of this crate.
pub fn targets() -> Vec<Target> {
    vec![CHAIN, limit::peers::fuzz::TARGET]
}

const CHAIN: Target = Target {
    name: "chain-file",
    seeds: &[
        b"listen: \":8080\"\nstages:\n  shop:\n    balance: {upstream: [\"127.0.0.1:8081\"], affinity: cookie}\nroutes:\n- path: /login\n  stages:\n  - limit: {rule: {name: l, key: \"header:X\", rate: 6/m, burst: 3}}\n  - shop\n- stages: shop\n",
        b"stages:\n- limit: {}\nroutes: []\n",
    ],
    run: |bytes| {
        chain::check("file", bytes);
        chain::is_chain(&String::from_utf8_lossy(bytes));
    },
};

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    proptest! {
        #[test]
        fn no_bytes_upset_a_parser(
            noise in proptest::collection::vec(any::<u8>(), 0..100),
            at: usize,
        ) {
            for target in super::targets() {
                target.run_near(&noise, at);
            }
        }
    }
}
