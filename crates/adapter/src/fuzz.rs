//! Targets of the fuzzer.

use podkit_foundation::fuzz::Target;

use crate::{client, health, metrics};

/// All of this crate.
pub fn targets() -> Vec<Target> {
    let mut targets = metrics::fuzz::targets();
    targets.extend(client::fuzz::TARGETS);
    targets.extend(health::fuzz::TARGETS);
    targets
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        // Of many targets, each with many seeds.
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_bytes_upset_a_parser(noise in prop::collection::vec(any::<u8>(), 0..64), at in any::<usize>()) {
            for target in super::targets() {
                target.run_near(&noise, at);
            }
        }
    }
}
