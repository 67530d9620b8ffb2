//! What registries, archives and files of credentials may hold.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use podkit_foundation::fuzz::Target;

use super::digest::Algorithm;
use super::reference::Reference;
use super::registry::Keyring;
use super::unpack::{Owners, layer};

pub(crate) const TARGETS: [Target; 3] = [
    Target {
        name: "image-layer",
        seeds: &[LAYER],
        run: unpack,
    },
    Target {
        name: "image-reference",
        seeds: &[b"registry.example:5000/a/b:tag@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
        run: |bytes| drop(String::from_utf8_lossy(bytes).parse::<Reference>()),
    },
    Target {
        name: "docker-config",
        seeds: &[
            br#"{"auths": {"https://index.docker.io/v1/": {"auth": "YTpi"}, "h:1/p": {"identitytoken": "x"}}}"#,
            br#"{"*.example": {"username": "u", "password": "p"}}"#,
        ],
        run: |bytes| {
            // An empty file of the user's: none is looked for.
            let keys = Keyring::new(&[bytes.to_vec()], Some(Path::new("/dev/null")));
            let reference: Reference = "h:1/p/a".parse().expect("it is one");
            drop(keys.map(|keys| keys.find(&reference)));
        },
    },
];

const LAYER: &[u8] = &header();

/// A header of a file of no bytes, with its checksum, and the two blocks of the end.
const fn header() -> [u8; 1536] {
    let mut block = [0; 1536];
    let fields: [(usize, &[u8]); 5] = [
        (0, b"d/.wh.a"),
        (100, b"0000644"),
        (124, b"00000000000"),
        (148, b"        "),
        (156, b"0"),
    ];
    let mut field = 0;
    while field < fields.len() {
        let (at, text) = fields[field];
        let mut index = 0;
        while index < text.len() {
            block[at + index] = text[index];
            index += 1;
        }
        field += 1;
    }
    let (mut sum, mut index) = (0_u32, 0);
    while index < 512 {
        sum += block[index] as u32;
        index += 1;
    }
    index = 0;
    while index < 6 {
        block[153 - index] = b'0' + (sum >> (3 * index) & 7) as u8;
        index += 1;
    }
    block[154] = 0;
    block
}

/// Into a directory that nothing may leave.
fn unpack(bytes: &[u8]) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("podkit-fuzz-{}-{count}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir(&dir).expect("there is a directory for temporary files");
    if let Ok((tree, _)) = layer(
        bytes,
        &dir.join("tree"),
        Owners::of_this_process(),
        Algorithm::Sha256,
    ) {
        drop(tree.finish(&[]));
    }
    let beside = std::fs::read_dir(&dir).expect("it is there").count();
    std::fs::remove_dir_all(&dir).expect("it is ours");
    assert!(beside <= 1, "something left the tree");
}
