//! `mysql://`, `postgres://`: a query that is like the application's own, and what its answer has to be.
//!
//! The session can't write and the server bounds each statement. A query that hangs is ended on the server too: by another connection,
//! as a server looks at a connection that was closed only when it has something to send.

use std::pin::Pin;
use std::time::Duration;

use podkit_dataplane::tls::UpstreamTls;
use regex::bytes::Regex;
use tokio::time::Instant;

use super::{Prober, Probing};
use crate::client::{Answer, Fault, Login, Step, Table, TlsMode, mysql, postgres};
use crate::health::link::Ground;
use crate::health::phases::{Phase, Phases};
use crate::health::spec::{Kind, Place, Spec};

pub(super) struct Sql {
    kind: Kind,
    login: Login,
    query: String,
    /// How long the server may take for a statement.
    limit: Duration,
    relogin: Duration,
    wanted: Wanted,
    /// Not there while it is asked.
    kept: Option<Session>,
    /// The connection that is asked, as the server calls it.
    asked: Option<String>,
}

/// What the answer has to be.
struct Wanted {
    /// From and to, both included.
    rows: Option<(usize, usize)>,
    value: Option<String>,
    matches: Option<Regex>,
}

/// A connection.
struct Session {
    conn: Conn,
    since: Instant,
    /// Of TLS' files, from before it was opened.
    generation: u64,
    /// As the server calls it.
    id: String,
}

enum Conn {
    MySql(mysql::Conn),
    Postgres(postgres::Conn),
}

impl Sql {
    pub(super) fn new(spec: &Spec, ground: &Ground, limit: Duration) -> Result<Self, String> {
        let Place::Server(addr, path) = &spec.place else {
            return Err("it names no server".to_owned());
        };
        let database = match path.trim_start_matches('/') {
            "" => None,
            name if name.contains(['/', '?']) => {
                return Err(format!("\"{name}\" is no name of a database"));
            }
            name => Some(name.to_owned()),
        };
        let ca = ground.tls.as_ref().is_some_and(UpstreamTls::has_ca);
        let tls = TlsMode::of(spec.option("tls"), addr, ca)?;
        if tls == TlsMode::Verify && ground.tls.is_none() {
            return Err(
                "tls=verify, and no probe needed TLS' files at the start: this takes a restart"
                    .to_owned(),
            );
        }
        let usual = match spec.scheme.kind {
            Kind::MySql => "root",
            _ => "postgres",
        };
        Ok(Self {
            kind: spec.scheme.kind,
            login: Login {
                addr: addr.clone(),
                user: spec.option("user").unwrap_or(usual).to_owned(),
                password_file: spec.option("password-file").map(Into::into),
                database,
                tls,
                files: ground.tls.clone(),
            },
            query: spec.option("query").unwrap_or("SELECT 1").to_owned(),
            limit,
            relogin: ground.relogin,
            wanted: Wanted::new(spec)?,
            kept: None,
            asked: None,
        })
    }

    async fn ask(&mut self, phases: &Phases) -> Result<String, String> {
        let generation = self.login.generation();
        let fresh = |session: &Session| {
            session.generation == generation && session.since.elapsed() < self.relogin
        };
        if let Some(mut session) = self.kept.take().filter(fresh) {
            phases.enter(Phase::Query);
            self.asked = Some(session.id.clone());
            match session.conn.one(&self.query).await {
                // The server was started anew, or does not keep who is silent for so long.
                Err(Fault::Lost(_)) => self.asked = None,
                done => return self.judge(session, done),
            }
        }
        let mut session = self.open(phases).await.map_err(|fault| fault.to_string())?;
        phases.enter(Phase::Query);
        self.asked = Some(session.id.clone());
        let done = session.conn.one(&self.query).await;
        self.judge(session, done)
    }

    fn judge(&mut self, session: Session, done: Result<Table, Fault>) -> Result<String, String> {
        self.asked = None;
        if !matches!(done, Err(Fault::Lost(_))) {
            self.kept = Some(session);
        }
        self.wanted.look(&done.map_err(|fault| fault.to_string())?)
    }

    async fn open(&self, phases: &Phases) -> Result<Session, Fault> {
        let generation = self.login.generation();
        let told = |step| {
            phases.enter(match step {
                Step::Dns => Phase::Dns,
                Step::Connect => Phase::Connect,
                Step::Tls => Phase::Tls,
                Step::Auth => Phase::Auth,
            });
        };
        let mut conn = self.connect(&told).await?;
        for statement in conn.settings(self.limit) {
            conn.one(&statement).await?;
        }
        let id = conn.one(conn.own_id()).await?;
        let id = id.rows().next().map(|row| row.text(0).to_owned());
        Ok(Session {
            conn,
            since: Instant::now(),
            generation,
            id: id.unwrap_or_default(),
        })
    }

    async fn connect(&self, told: &dyn Fn(Step)) -> Result<Conn, Fault> {
        Ok(match self.kind {
            Kind::MySql => Conn::MySql(mysql::Conn::open_told(&self.login, false, told).await?),
            _ => Conn::Postgres(postgres::Conn::open_told(&self.login, told).await?),
        })
    }

    /// Ends what another connection asked.
    async fn end(&self, id: &str) -> Result<(), Fault> {
        // It is a number; nothing else is sent on.
        let number: u64 = id
            .parse()
            .map_err(|_| Fault::Lost(format!("has no number: {id}")))?;
        let mut conn = self.connect(&|_| ()).await?;
        let statement = match self.kind {
            Kind::MySql => format!("KILL {number}"),
            _ => format!("SELECT pg_terminate_backend({number})"),
        };
        conn.one(&statement).await.map(drop)
    }
}

impl Prober for Sql {
    fn probe<'a>(&'a mut self, phases: &'a Phases) -> Probing<'a> {
        Box::pin(self.ask(phases))
    }

    fn give_up(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async {
            let Some(id) = self.asked.take() else {
                return;
            };
            if let Err(fault) = self.end(&id).await {
                tracing::debug!(id, %fault, "a query that was given up could not be ended");
            }
        })
    }
}

impl Conn {
    /// One statement; the rows of it.
    async fn one(&mut self, statement: &str) -> Result<Table, Fault> {
        match self {
            Self::MySql(conn) => conn.ask(statement).await?,
            Self::Postgres(conn) => conn.ask(statement).await?,
        }
        let mut table = None;
        loop {
            match self.next().await? {
                Answer::Table(next) => table = Some(next),
                Answer::Refused(fault) => {
                    self.rest().await?;
                    return Err(fault);
                }
                Answer::End => return Ok(table.unwrap_or_default()),
            }
        }
    }

    async fn next(&mut self) -> Result<Answer, Fault> {
        match self {
            Self::MySql(conn) => conn.next().await,
            Self::Postgres(conn) => conn.next().await,
        }
    }

    /// Reads to the end, so that the connection can go on.
    async fn rest(&mut self) -> Result<(), Fault> {
        while !matches!(self.next().await?, Answer::End) {}
        Ok(())
    }

    /// It can't write, and the server ends what takes too long.
    fn settings(&self, limit: Duration) -> Vec<String> {
        match self {
            Self::Postgres(_) => vec![
                "SET default_transaction_read_only = on".to_owned(),
                format!("SET statement_timeout = {}", limit.as_millis()),
            ],
            Self::MySql(conn) => {
                let mut settings = vec!["SET SESSION TRANSACTION READ ONLY".to_owned()];
                let server = conn.server();
                match server.mariadb {
                    true if server.version >= (10, 1, 1) => settings.push(format!(
                        "SET SESSION max_statement_time = {}",
                        limit.as_secs_f64()
                    )),
                    false if server.version >= (5, 7, 8) => settings.push(format!(
                        "SET SESSION max_execution_time = {}",
                        limit.as_millis()
                    )),
                    _ => {}
                }
                settings
            }
        }
    }

    fn own_id(&self) -> &'static str {
        match self {
            Self::MySql(_) => "SELECT CONNECTION_ID()",
            Self::Postgres(_) => "SELECT pg_backend_pid()",
        }
    }
}

impl Wanted {
    fn new(spec: &Spec) -> Result<Self, String> {
        let rows = spec.option("rows").map(|text| {
            let (from, to) = text.split_once('-').unwrap_or((text, text));
            let to = if to.is_empty() {
                Some(usize::MAX)
            } else {
                to.parse().ok()
            };
            let range = from.parse().ok().zip(to).filter(|(from, to)| from <= to);
            range.ok_or_else(|| format!("rows={text} is not a count such as 1, 1-10 or 1-"))
        });
        let matches = spec
            .option("match")
            .map(|text| super::http::regex("match", text));
        Ok(Self {
            rows: rows.transpose()?,
            value: spec.option("value").map(str::to_owned),
            matches: matches.transpose()?,
        })
    }

    /// Of values, the first column of the first row counts.
    fn look(&self, table: &Table) -> Result<String, String> {
        let count = table.rows().count();
        let shown = format!("gives {count} row{}", if count == 1 { "" } else { "s" });
        if let Some((from, to)) = self.rows
            && !(from..=to).contains(&count)
        {
            let wanted = match to {
                _ if from == to => format!("{from}"),
                usize::MAX => format!("at least {from}"),
                _ => format!("{from} to {to}"),
            };
            return Err(format!("{shown}, not {wanted}"));
        }
        if self.value.is_none() && self.matches.is_none() {
            return Ok(shown);
        }
        let first = table.rows().next().ok_or("gives no row")?;
        let first = first.get(0).unwrap_or("NULL");
        if let Some(wanted) = self.value.as_deref().filter(|wanted| *wanted != first) {
            return Err(format!("gives {first}, not {wanted}"));
        }
        match &self.matches {
            Some(wanted) if !wanted.is_match(first.as_bytes()) => {
                Err(format!("gives {first}, which does not match {wanted}"))
            }
            _ => Ok(format!("gives {first}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use podkit_foundation::params::ParamType as _;

    use super::*;
    use crate::client::{Class, Column};

    #[test]
    fn answers_are_held_against_what_is_wanted() {
        let check = |keys: &str, values: &[Option<&str>], expected: Result<&str, &str>| {
            let spec = Spec::parse(&format!("a=mysql://h{keys}")).unwrap();
            let column = Column {
                name: "a".to_owned(),
                class: Class::Text,
            };
            let mut table = Table::new(vec![column]);
            for value in values {
                table.push(value.map(str::as_bytes));
            }
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(Wanted::new(&spec).unwrap().look(&table), expected, "{keys}");
        };
        let (two, none): (&[_], &[_]) = (&[Some("on"), None], &[]);
        check("", two, Ok("gives 2 rows"));
        check("", none, Ok("gives 0 rows"));
        check(";rows=2", two, Ok("gives 2 rows"));
        check(";rows=1-", two, Ok("gives 2 rows"));
        check(";rows=1-", none, Err("gives 0 rows, not at least 1"));
        check(";rows=1", two, Err("gives 2 rows, not 1"));
        check(";rows=3-9", two, Err("gives 2 rows, not 3 to 9"));
        check(";value=on", two, Ok("gives on"));
        check(";value=off", two, Err("gives on, not off"));
        check(";value=off", none, Err("gives no row"));
        check(";value=NULL", &[None], Ok("gives NULL"));
        check(";match=^o;rows=2", two, Ok("gives on"));
        check(";match=^f", two, Err("gives on, which does not match ^f"));
    }
}
