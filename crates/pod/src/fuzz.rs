//! Targets of the fuzzer.

use podkit_foundation::fuzz::Target;

use crate::{check, image};

/// All of this crate.
pub fn targets() -> Vec<Target> {
    let mut all = vec![check::fuzz::TARGET];
    all.extend(image::fuzz::TARGETS);
    all
}

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
