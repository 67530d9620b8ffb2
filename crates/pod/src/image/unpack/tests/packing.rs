//! Compressed layers, whole and cut off.

use std::fs;
use std::io::Write;

use super::support::Tar;
use crate::image::digest::{Algorithm, Digest};
use crate::image::unpack::{Owners, layer};

#[test]
fn packed_layers() {
    let bytes = Tar::default().file("x", "data").done();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let (first, second) = bytes.split_at(600);
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2];
    let zstd = zstd::encode_all(bytes.as_slice(), 3).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for (number, packed) in [
        bytes.clone(),
        gzip(&bytes),
        [gzip(first), gzip(second)].concat(),
        zstd.clone(),
        [&skippable, zstd.as_slice(), &skippable].concat(),
    ]
    .into_iter()
    .enumerate()
    {
        let into = dir.path().join(number.to_string());
        let owners = Owners::of_this_process();
        let (tree, digest) = layer(packed.as_slice(), &into, owners, Algorithm::Sha256).unwrap();
        tree.finish(&[]).unwrap();
        assert_eq!(digest, Digest::of(&bytes));
        assert_eq!(fs::read(into.join("x")).unwrap(), b"data");
        // One that is cut off is not a shorter layer.
        let cut = dir.path().join(format!("cut{number}"));
        if number > 0 {
            let cut = layer(
                &packed[..packed.len() - 11],
                &cut,
                owners,
                Algorithm::Sha256,
            );
            assert!(cut.is_err(), "{number}");
        }
    }
    let into = dir.path().join("bz");
    let error = layer(
        b"BZh9....".as_slice(),
        &into,
        Owners::of_this_process(),
        Algorithm::Sha256,
    );
    assert!(error.err().unwrap().to_string().contains("bzip2"));
}
