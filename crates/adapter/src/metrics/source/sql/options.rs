//! What can be said of a source: who comes, and what is collected.

use std::time::Duration;

use podkit_dataplane::tls::UpstreamTls;
use podkit_foundation::params::ParamType;
use podkit_foundation::yaml::nearest;

use crate::client::{Login, TlsMode};
use crate::metrics::source::Ground;
use crate::metrics::spec::Spec;

/// The keys of a source.
pub(crate) const KEYS: &[&str] = &["user", "password-file", "tls", "collect", "skip", "queries"];

/// The shortest interval of a part.
const LEAST: Duration = Duration::from_millis(100);

/// Who comes, and where to. `user` is who it is when nobody is named.
pub(super) fn login(spec: &Spec, ground: &Ground, user: &str) -> Result<Login, String> {
    let database = match spec.path.trim_start_matches('/') {
        "" => None,
        name if name.contains(['/', '?']) => {
            return Err(format!("\"{name}\" is no name of a database"));
        }
        name => Some(name.to_owned()),
    };
    if spec.addr.port() == Some(0) {
        return Err("port 0 can't be dialled".to_owned());
    }
    let ca = ground.tls.as_ref().is_some_and(UpstreamTls::has_ca);
    let tls = mode(spec, ca)?;
    Ok(Login {
        addr: spec.addr.clone(),
        user: spec.option("user").unwrap_or(user).to_owned(),
        password_file: spec.file("password-file"),
        database,
        tls,
        files: ground.tls.clone(),
    })
}

/// When TLS is spoken.
fn mode(spec: &Spec, ca: bool) -> Result<TlsMode, String> {
    TlsMode::of(spec.option("tls"), &spec.addr, ca)
}

/// This source has a use for the files of TLS, of which these are given. What is wrong is said where it is read.
pub(crate) fn uses_tls_files(spec: &Spec, ca: bool, cert: bool) -> bool {
    mode(spec, ca).is_ok_and(|mode| mode.uses_files(cert))
}

/// Which collectors there are, and how often each is asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen(Vec<(&'static str, Option<Duration>)>);

impl Chosen {
    /// By `collect=NAME[@INTERVAL]+…`, which adds one or gives it an interval, and `skip=NAME+…`.
    pub(super) fn of(
        spec: &Spec,
        usual: &[&'static str],
        more: &[&'static str],
    ) -> Result<Self, String> {
        let known = |name: &str| {
            let mut all = usual.iter().chain(more).copied();
            all.find(|one| *one == name).ok_or_else(|| {
                let all = usual.iter().chain(more).copied();
                match nearest(name, all.clone()) {
                    Some(near) => format!("there is no collector {name}; did you mean {near}?"),
                    None => format!(
                        "there is no collector {name}; there are {}",
                        all.collect::<Vec<_>>().join(", ")
                    ),
                }
            })
        };
        let mut chosen: Vec<_> = usual.iter().map(|name| (*name, None)).collect();
        for one in spec
            .option("skip")
            .into_iter()
            .flat_map(|all| all.split('+'))
        {
            let name = known(one)?;
            chosen.retain(|(known, _)| *known != name);
        }
        for one in spec
            .option("collect")
            .into_iter()
            .flat_map(|all| all.split('+'))
        {
            let (name, interval) = match one.split_once('@') {
                Some((name, interval)) => {
                    let time = Duration::parse(interval).ok().filter(|time| *time >= LEAST);
                    let time =
                        time.ok_or_else(|| format!("{one}: {interval} is not a time such as 60s"))?;
                    (known(name)?, Some(time))
                }
                None => (known(one)?, None),
            };
            chosen.retain(|(known, _)| *known != name);
            chosen.push((name, interval));
        }
        Ok(Self(chosen))
    }

    /// The interval of a collector; None when it is not collected.
    pub(super) fn interval(&self, name: &str) -> Option<Option<Duration>> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, interval)| *interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_can_be_verified_is() {
        let check = |text: &str, ca, expected| {
            assert_eq!(
                mode(&Spec::parse(text).unwrap(), ca),
                Ok(expected),
                "{text}"
            );
        };
        check("mysql://h", false, TlsMode::Prefer);
        check("mysql://h", true, TlsMode::Verify);
        check("mysql://h;tls=require", true, TlsMode::Require);
        check("mysql://unix:/s", true, TlsMode::Off);
        let uses = |text: &str, ca, cert| uses_tls_files(&Spec::parse(text).unwrap(), ca, cert);
        assert!(uses("postgres://h", true, false) && uses("postgres://h", false, true));
        assert!(uses("postgres://h;tls=verify", false, false));
        assert!(!uses("postgres://h", false, false) && !uses("postgres://h;tls=off", true, true));
    }

    fn chosen(options: &str) -> Result<Chosen, String> {
        let spec = Spec::parse(&format!("mysql://h{options}")).unwrap();
        Chosen::of(&spec, &["status", "tables"], &["binlog"])
    }

    #[test]
    fn collectors_are_chosen() {
        let check = |options: &str, names: &[(&str, Option<u64>)]| {
            let chosen = chosen(options).unwrap();
            for name in ["status", "tables", "binlog"] {
                let expected = names.iter().find(|(known, _)| *known == name);
                let expected = expected.map(|(_, seconds)| seconds.map(Duration::from_secs));
                assert_eq!(chosen.interval(name), expected, "{options} {name}");
            }
        };
        check("", &[("status", None), ("tables", None)]);
        check(
            ";skip=tables;collect=binlog@5m",
            &[("status", None), ("binlog", Some(300))],
        );
        check(
            ";collect=tables@60s+binlog",
            &[("status", None), ("tables", Some(60)), ("binlog", None)],
        );
        let wrong = |options: &str, why: &str| {
            let error = chosen(options).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        wrong(";collect=binlogs", "did you mean binlog?");
        wrong(";skip=x", "there are status, tables, binlog");
        wrong(";collect=binlog@5", "5 is not a time");
    }
}
