//! `redis://`, `rediss://`: the server answers as who it is to be; optionally its role, how far it lags, and a key written and read.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use podkit_dataplane::resp::scan::{Replies, Shape, put_command, text};
use podkit_dataplane::tls::Inside;
use podkit_foundation::yaml::read;

use super::{Prober, Probing};
use crate::health::link::{Ground, Line, Link};
use crate::health::phases::{Phase, Phases};
use crate::health::spec::Spec;

/// Bytes of a reply at most.
const MOST_BYTES: usize = 64 * 1024;

/// How long a canary lives, in milliseconds.
const CANARY_MILLIS: &str = "60000";

pub(super) struct Redis {
    link: Link,
    user: Option<String>,
    password: Option<PathBuf>,
    wanted: Wanted,
    /// The key that is written and read.
    canary: Option<String>,
}

struct Wanted {
    /// `master` or `slave`, as Redis says it.
    role: Option<&'static str>,
    lag: Option<Duration>,
}

impl Redis {
    pub(super) fn new(spec: &Spec, ground: &Ground) -> Result<Self, String> {
        let role = spec.word("role", &["master", "replica"])?;
        let password = spec.option("password-file").map(PathBuf::from);
        let user = spec.option("user").map(str::to_owned);
        match &password {
            Some(path) => drop(secret(path)?),
            None if user.is_some() => return Err("user= needs password-file=".to_owned()),
            None => {}
        }
        Ok(Self {
            link: Link::new(spec, ground, Inside::Any)?,
            user,
            password,
            wanted: Wanted {
                role: role.map(|role| if role == "replica" { "slave" } else { role }),
                lag: spec.time("max-lag")?,
            },
            canary: spec.option("canary").map(|key| own_key(key, &spec.name)),
        })
    }

    async fn ask(&mut self, phases: &Phases) -> Result<String, String> {
        if let Some(mut line) = self.link.take() {
            phases.enter(Phase::Query);
            match self.query(&mut line).await {
                // What the server says counts; only a connection that ended may have done so before.
                Err(Fault::Said(why)) => return Err(why),
                Ok(found) => {
                    self.link.keep(line);
                    return Ok(found);
                }
                Err(Fault::Broken(_)) => {}
            }
        }
        let mut line = self.link.open(phases).await?;
        if let Some(path) = &self.password {
            phases.enter(Phase::Auth);
            // Read anew, as it may have changed.
            let password = secret(path)?;
            let mut words = vec!["AUTH"];
            words.extend(self.user.as_deref());
            words.push(&password);
            one(&mut line, &words).await.map_err(Fault::why)?;
        }
        phases.enter(Phase::Query);
        let found = self.query(&mut line).await.map_err(Fault::why)?;
        self.link.keep(line);
        Ok(found)
    }

    async fn query(&self, line: &mut Line) -> Result<String, Fault> {
        let found = match self.wanted.role.is_some() || self.wanted.lag.is_some() {
            true => {
                let info = one(line, &["INFO", "replication"]).await?;
                let info = text(&info).unwrap_or_default();
                let look = self.wanted.look(&String::from_utf8_lossy(info));
                look.map_err(Fault::Said)?
            }
            false => {
                let reply = one(line, &["PING"]).await?;
                String::from_utf8_lossy(text(&reply).unwrap_or_default()).into_owned()
            }
        };
        let Some(key) = &self.canary else {
            return Ok(found);
        };
        let value = now();
        one(line, &["SET", key, &value, "PX", CANARY_MILLIS]).await?;
        let read = one(line, &["GET", key]).await?;
        match text(&read) == Some(value.as_bytes()) {
            true => Ok(format!("{found}, keeps what is written")),
            false => Err(Fault::Said(format!(
                "does not have what was written to {key}"
            ))),
        }
    }
}

impl Prober for Redis {
    fn probe<'a>(&'a mut self, phases: &'a Phases) -> Probing<'a> {
        Box::pin(self.ask(phases))
    }
}

/// Why a command has no good reply.
enum Fault {
    /// The server says so.
    Said(String),
    /// The connection does not carry it.
    Broken(String),
}

impl Fault {
    fn why(self) -> String {
        match self {
            Self::Said(why) | Self::Broken(why) => why,
        }
    }
}

/// One command and its reply.
async fn one(line: &mut Line, words: &[&str]) -> Result<Vec<u8>, Fault> {
    let mut command = Vec::new();
    put_command(&mut command, words);
    line.send(&command).await.map_err(Fault::Broken)?;
    let mut replies = Replies::default();
    let find = |bytes: &[u8]| replies.next(bytes).map_err(str::to_owned);
    let (length, shape) = line.read(MOST_BYTES, find).await.map_err(Fault::Broken)?;
    let reply = line.input.filled()[..length].to_vec();
    line.input.consume(length);
    match shape {
        Shape::Value => Ok(reply),
        Shape::Error | Shape::Push => {
            let said = String::from_utf8_lossy(&reply[1..]);
            Err(Fault::Said(format!("says {}", said.trim_end())))
        }
    }
}

impl Wanted {
    /// What `INFO replication` tells.
    fn look(&self, info: &str) -> Result<String, String> {
        let field = |name: &str| {
            let mut lines = info.lines().filter_map(|line| line.split_once(':'));
            lines
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.trim())
        };
        let role = field("role").ok_or("does not tell its role")?;
        let word = |role| if role == "slave" { "replica" } else { role };
        if let Some(wanted) = self.role.filter(|wanted| *wanted != role) {
            return Err(format!("is {}, not {}", word(role), word(wanted)));
        }
        let shown = format!("is {}", word(role));
        let Some(most) = self.lag else {
            return Ok(shown);
        };
        let behind = |lag: u64| {
            let most = most.as_secs();
            format!("lags by {lag} s, more than {most} s")
        };
        if role == "slave" {
            if field("master_link_status") != Some("up") {
                return Err("is a replica without a link to its master".to_owned());
            }
            let lag: u64 = field("master_last_io_seconds_ago")
                .and_then(|text| text.parse().ok())
                .ok_or("does not tell how far it lags")?;
            return match Duration::from_secs(lag) > most {
                true => Err(behind(lag)),
                false => Ok(format!("{shown}, heard its master {lag} s ago")),
            };
        }
        // slave0:ip=10.0.0.2,port=6379,state=online,offset=14,lag=0
        let replicas = info.lines().filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            let number = name.strip_prefix("slave")?;
            number.parse::<u32>().ok()?;
            let lag = rest
                .trim()
                .split(',')
                .find_map(|part| part.strip_prefix("lag="))?;
            Some((name, lag.parse::<u64>().ok()?))
        });
        let worst = replicas.max_by_key(|(_, lag)| *lag);
        match worst {
            Some((name, lag)) if Duration::from_secs(lag) > most => {
                Err(format!("has a replica ({name}) that {}", behind(lag)))
            }
            _ => Ok(shown),
        }
    }
}

fn secret(path: &std::path::Path) -> Result<String, String> {
    let shown = path.display();
    let bytes = read::file(path).map_err(|why| format!("password-file={shown}: {why}"))?;
    let text =
        String::from_utf8(bytes).map_err(|_| format!("password-file={shown} is not text"))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// A key that nobody else writes: of this host and this probe.
pub(super) fn own_key(key: &str, probe: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{key}:{}:{probe}", host.trim())
}

/// What is written: another text each time.
pub(super) fn now() -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_nanos().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_and_the_lag_are_read() {
        let master = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\nslave0:ip=a,port=1,state=online,offset=14,lag=0\r\n\
                      slave1:ip=b,port=1,state=online,offset=14,lag=7\r\nslave_x:lag=99\r\n";
        let replica = "role:slave\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:3\r\n";
        let cut = "role:slave\r\nmaster_link_status:down\r\nmaster_last_io_seconds_ago:-1\r\n";
        let check = |info: &str, role, lag: Option<u64>, expected: Result<&str, &str>| {
            let lag = lag.map(Duration::from_secs);
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(Wanted { role, lag }.look(info), expected, "{info}");
        };
        check(master, Some("master"), None, Ok("is master"));
        check(replica, Some("slave"), None, Ok("is replica"));
        check(replica, Some("master"), None, Err("is replica, not master"));
        check(master, Some("slave"), None, Err("is master, not replica"));
        check(master, None, Some(7), Ok("is master"));
        check(
            master,
            None,
            Some(5),
            Err("has a replica (slave1) that lags by 7 s, more than 5 s"),
        );
        check(
            replica,
            None,
            Some(5),
            Ok("is replica, heard its master 3 s ago"),
        );
        check(replica, None, Some(2), Err("lags by 3 s, more than 2 s"));
        check(
            cut,
            None,
            Some(5),
            Err("is a replica without a link to its master"),
        );
        check("", None, None, Err("does not tell its role"));
    }
}
