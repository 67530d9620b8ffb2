//! Every target in one program: `PODKIT_FUZZ` names the one that runs, `PODKIT_FUZZ_SEEDS` a directory that the seeds of all are
//! written to, `NAME/NUMBER`, instead.

#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use podkit_foundation::fuzz::Target;

static CHOSEN: OnceLock<Target> = OnceLock::new();

fuzz_target!(init: choose(), |bytes: &[u8]| {
    if let Some(target) = CHOSEN.get() {
        (target.run)(bytes);
    }
});

fn choose() {
    let all = [
        podkit_adapter::fuzz::targets(),
        podkit_ambassador::fuzz::targets(),
        podkit_dataplane::fuzz::targets(),
        podkit_pod::fuzz::targets(),
        podkit_serving::fuzz::targets(),
        podkit_sidecar::fuzz::targets(),
    ]
    .concat();
    if let Some(dir) = std::env::var_os("PODKIT_FUZZ_SEEDS") {
        for target in all {
            let dir = Path::new(&dir).join(target.name);
            std::fs::create_dir_all(&dir).expect("the directory of the seeds can be made");
            for (number, seed) in target.seeds.iter().enumerate() {
                std::fs::write(dir.join(number.to_string()), seed).expect("a seed can be written");
            }
        }
        return;
    }
    let name = std::env::var("PODKIT_FUZZ").unwrap_or_default();
    let Some(target) = all.iter().find(|target| target.name == name) else {
        panic!("PODKIT_FUZZ={name} is no target");
    };
    CHOSEN.set(*target).ok();
}
