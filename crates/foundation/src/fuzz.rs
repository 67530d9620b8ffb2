//! Parsers of foreign bytes as functions of bytes: what the fuzzer of the workspace `fuzz/` runs for hours, and a property test of each
//! crate with every run of the tests, so that no target rots.

/// A parser, or what stands behind one. It must not panic, nor take more than its bytes are worth.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// What `cargo xtask fuzz` calls it.
    pub name: &'static str,
    /// Bytes that it takes: where the fuzzer begins.
    pub seeds: &'static [&'static [u8]],
    /// Runs it.
    pub run: fn(&[u8]),
}

impl Target {
    /// Runs it on `noise`, and on each seed with `noise` in it at `at`, instead of as many bytes or between them.
    pub fn run_near(&self, noise: &[u8], at: usize) {
        (self.run)(noise);
        for seed in self.seeds {
            let (before, after) = seed.split_at(at % (seed.len() + 1));
            (self.run)(&[before, noise, after].concat());
            let kept = after.get(noise.len()..).unwrap_or_default();
            (self.run)(&[before, noise, kept].concat());
        }
    }
}

/// The bytes behind the first, in pieces of the size that the first says.
pub fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (size, rest) = bytes.split_first().unwrap_or((&0, &[]));
    rest.chunks(usize::from(*size).max(1))
}
