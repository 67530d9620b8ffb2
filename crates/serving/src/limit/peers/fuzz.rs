//! What a stranger may send to a replica.

use podkit_foundation::fuzz::{Target, pieces};
use tokio::io::{AsyncWriteExt as _, duplex};

use super::wire::{self, Ask, Role, Secret};

pub(crate) const TARGET: Target = Target {
    name: "limit-peers",
    seeds: &[
        b"\x20podkit\x001aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        b"\x03podkit\x001",
    ],
    run,
};

fn run(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without drivers needs nothing");
    for role in [Role::Asker, Role::Owner] {
        runtime.block_on(async {
            // Room for all that is said before anybody listens.
            let (near, mut far) = duplex(bytes.len() + 4096);
            for piece in pieces(bytes) {
                drop(far.write_all(piece).await);
            }
            drop(far.shutdown().await);
            let secret = Secret::new(b"secret");
            if let Ok((mut reader, _)) = wire::shake(near, &secret, role).await {
                while let Ok(Some(_)) = reader.next::<Ask>().await {}
            }
        });
    }
}
