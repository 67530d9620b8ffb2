//! What git servers, those who push, and signers may send.

use std::io;

use podkit_foundation::fuzz::Target;

use super::signers::Signers;
use super::{webhook, wire};

pub(crate) const TARGETS: [Target; 5] = [
    Target {
        name: "git-handshake",
        seeds: &[b"001e# service=git-upload-pack\n0000000eversion 2\n0013ls-refs=unborn\n0000"],
        run: |bytes| drop(wire::read_greeting(bytes)),
    },
    Target {
        name: "git-refs",
        seeds: &[b"003daaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa refs/heads/main\n0000"],
        run: |bytes| drop(wire::read_refs(bytes)),
    },
    Target {
        name: "git-fetch",
        seeds: &[b"000dpackfile\n000e\x02progress\x01000c\x01PACK\x00\x00\x000000"],
        run: |bytes| {
            if let Ok((_, mut pack)) = wire::read_fetch(bytes) {
                drop(io::copy(&mut pack, &mut io::sink()));
            }
        },
    },
    Target {
        name: "git-webhook",
        seeds: &[b"sha256=0000000000000000000000000000000000000000000000000000000000000000"],
        run: |bytes| {
            let text = String::from_utf8_lossy(bytes);
            for name in ["X-Gitlab-Token", "X-Hub-Signature-256", "X-Gitea-Signature"] {
                let header = |asked: &str| (asked == name).then_some(&*text);
                let judged = webhook::is_signed(b"a secret of the test", bytes, &header);
                assert!(judged.is_err(), "nobody who fuzzes knows the secret");
            }
        },
    },
    Target {
        name: "git-signers",
        seeds: &[b"a@example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"],
        run: |bytes| {
            let text = String::from_utf8_lossy(bytes);
            if let Ok(signers) = Signers::parse(&text) {
                drop(signers.check(b"text", &text));
            }
        },
    },
];
