//! `cargo xtask docs`: what the program says of itself, as files. A test of the e2e suite writes the same files and fails
//! when one was stale.

use anyhow::Result;
use podkit_testkit::reference;

use crate::build::release;

pub(crate) fn run() -> Result<()> {
    let binary = release()?;
    let changed = reference::write(&binary);
    for path in &changed {
        println!("wrote {path}");
    }
    println!("docs: {} files changed", changed.len());
    Ok(())
}
