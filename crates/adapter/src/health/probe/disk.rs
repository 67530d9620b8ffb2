//! `disk://`: a file system has room left, in bytes and in inodes, for who is not root.

use rustix::fs::{StatVfs, statvfs};

use super::{Prober, Probing};
use crate::health::phases::{Phase, Phases};
use crate::health::spec::{Amount, Place, Spec};

pub(super) struct Disk {
    path: String,
    wanted: Wanted,
}

struct Wanted {
    free: Amount,
    inodes: Option<Amount>,
}

impl Disk {
    pub(super) fn new(spec: &Spec) -> Result<Self, String> {
        let Place::Path(path) = &spec.place else {
            return Err("it names no path".to_owned());
        };
        Ok(Self {
            path: path.clone(),
            wanted: Wanted {
                free: spec.amount("free")?.unwrap_or(Amount::Percent(5)),
                inodes: spec.amount("inodes")?,
            },
        })
    }
}

impl Prober for Disk {
    fn probe<'a>(&'a mut self, phases: &'a Phases) -> Probing<'a> {
        Box::pin(async {
            phases.enter(Phase::Query);
            let path = self.path.clone();
            // A network's file system may hang: not with everything else here.
            let found = tokio::task::spawn_blocking(move || statvfs(path.as_str()));
            let found = found.await.map_err(|why| why.to_string())?;
            self.wanted.look(&found.map_err(|why| why.to_string())?)
        })
    }
}

impl Wanted {
    fn look(&self, found: &StatVfs) -> Result<String, String> {
        let block = found.f_frsize;
        let bytes = room(
            "bytes",
            self.free,
            found.f_bavail.saturating_mul(block),
            found.f_blocks.saturating_mul(block),
        )?;
        match self.inodes {
            // Some file systems have no inodes to run out of.
            Some(wanted) if found.f_files > 0 => {
                let inodes = room("inodes", wanted, found.f_favail, found.f_files)?;
                Ok(format!("{bytes}, {inodes}"))
            }
            _ => Ok(bytes),
        }
    }
}

fn room(what: &str, wanted: Amount, free: u64, whole: u64) -> Result<String, String> {
    let percent = |of: u64| u128::from(of) * 100 / u128::from(whole.max(1));
    let (enough, least) = match wanted {
        Amount::Percent(least) => (
            u128::from(free) * 100 >= u128::from(least) * u128::from(whole),
            format!("{least} %"),
        ),
        Amount::Count(least) => (free >= least, least.to_string()),
    };
    let shown = format!("{free} of {whole} {what} are free ({} %)", percent(free));
    match enough {
        true => Ok(shown),
        false => Err(format!("only {shown}; expected at least {least}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_held_against_a_part_or_an_amount() {
        let check = |wanted, free, expected: Result<&str, &str>| {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(room("bytes", wanted, free, 1000), expected);
        };
        check(
            Amount::Percent(10),
            100,
            Ok("100 of 1000 bytes are free (10 %)"),
        );
        check(
            Amount::Percent(10),
            99,
            Err("only 99 of 1000 bytes are free (9 %); expected at least 10 %"),
        );
        check(Amount::Count(99), 99, Ok("99 of 1000 bytes are free (9 %)"));
        check(
            Amount::Count(100),
            99,
            Err("only 99 of 1000 bytes are free (9 %); expected at least 100"),
        );
    }
}
