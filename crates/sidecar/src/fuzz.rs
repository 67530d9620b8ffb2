//! Targets of the fuzzer.

use podkit_foundation::fuzz::Target;

use crate::publish::Url;
use crate::{config, git};

/// All of this crate.
pub fn targets() -> Vec<Target> {
    let mut all = vec![URL];
    all.extend(config::fuzz::TARGETS);
    all.extend(git::fuzz::TARGETS);
    all
}

const URL: Target = Target {
    name: "url",
    seeds: &[b"https://h:1/a?b", b"http://[::1]:80/"],
    run: |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(url) = Url::parse(&text) {
            assert_eq!(Url::parse(&url.to_string()), Ok(url));
        }
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
