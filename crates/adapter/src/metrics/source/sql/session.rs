//! A connection that is kept, and what is asked on it: many statements in one question, or one after the other.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::mapped::Mapped;
use super::range::{Range, Version};
use crate::client::{Answer, Fault, Login, Table, mysql, postgres};
use crate::metrics::batch::Batch;
use crate::metrics::keeper::Answered;

/// How long the server may take for one of the statements that come with podkit.
const STATEMENT: Duration = Duration::from_secs(30);
/// How much longer than the server's own limit it is waited for.
const GRACE: Duration = Duration::from_secs(1);

/// Which language is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    MySql,
    Postgres,
}

/// Whose statements they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Ours: in one question, on a connection that has the server's own settings.
    BuiltIn,
    /// Somebody's: each alone, with its own limit, on a connection that can't write.
    Custom,
}

/// Adds what rows say; an error is a clause.
pub(super) type Reading = Box<dyn Fn(&Table, &mut Batch) -> Result<(), String>>;

/// What becomes of rows.
pub(super) enum Read {
    /// They are none.
    Nothing,
    Mapped(Mapped),
    With(Reading),
}

/// A statement, and what is read from what it gives.
pub(super) struct Unit {
    pub(super) name: String,
    pub(super) sql: String,
    pub(super) read: Read,
    /// Servers that have it.
    pub(super) runs_on: Option<Range>,
    /// Of MySQL's kin: only MariaDB, or only others.
    pub(super) mariadb: Option<bool>,
    /// The code by which a server says that there is nothing of the kind.
    pub(super) nothing: Option<&'static str>,
    /// Of a custom one.
    pub(super) limit: Duration,
}

impl Unit {
    pub(super) fn new(name: impl Into<String>, sql: impl Into<String>, read: Read) -> Self {
        Self {
            name: name.into(),
            sql: sql.into(),
            read,
            runs_on: None,
            mariadb: None,
            nothing: None,
            limit: STATEMENT,
        }
    }
}

/// What became of a unit.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) name: String,
    pub(super) took: Duration,
    pub(super) why: Option<String>,
}

enum Conn {
    MySql(mysql::Conn),
    Postgres(postgres::Conn),
}

impl Conn {
    async fn ask(&mut self, statements: &str) -> Result<(), Fault> {
        match self {
            Self::MySql(conn) => conn.ask(statements).await,
            Self::Postgres(conn) => conn.ask(statements).await,
        }
    }

    async fn next(&mut self) -> Result<Answer, Fault> {
        match self {
            Self::MySql(conn) => conn.next().await,
            Self::Postgres(conn) => conn.next().await,
        }
    }

    /// For statements without rows that must not fail.
    async fn set(&mut self, statement: &str) -> Result<(), Fault> {
        self.ask(statement).await?;
        loop {
            match self.next().await? {
                Answer::Table(_) => {}
                Answer::Refused(fault) => {
                    return Err(Fault::Lost(format!("{fault} (to {statement})")));
                }
                Answer::End => return Ok(()),
            }
        }
    }

    fn version(&self) -> Version {
        match self {
            Self::MySql(conn) => conn.server().version,
            Self::Postgres(conn) => {
                let version = conn.version();
                match version / 10_000 {
                    old @ 0..=9 => (old, version / 100 % 100, version % 100),
                    major => (major, version % 10_000, 0),
                }
            }
        }
    }

    fn is_mariadb(&self) -> bool {
        matches!(self, Self::MySql(conn) if conn.server().mariadb)
    }

    /// The statement that bounds those that follow.
    fn limit(&self, limit: Duration) -> Option<String> {
        match self {
            Self::Postgres(_) => Some(format!("SET statement_timeout = {}", limit.as_millis())),
            Self::MySql(conn) => {
                let server = conn.server();
                match server.mariadb {
                    true if server.version >= (10, 1, 1) => Some(format!(
                        "SET SESSION max_statement_time = {}",
                        limit.as_secs_f64()
                    )),
                    false if server.version >= (5, 7, 8) => Some(format!(
                        "SET SESSION max_execution_time = {}",
                        limit.as_millis()
                    )),
                    _ => None,
                }
            }
        }
    }
}

/// A connection, opened when it is needed.
pub(super) struct Session {
    login: Login,
    dialect: Dialect,
    purpose: Purpose,
    /// Not there while it is asked, so that it is gone when the question is dropped. With the count of TLS' files from before it was opened.
    conn: Option<(Conn, u64)>,
}

impl Session {
    pub(super) fn new(login: Login, dialect: Dialect, purpose: Purpose) -> Self {
        Self {
            login,
            dialect,
            purpose,
            conn: None,
        }
    }

    /// Asks for all units, and reads what comes into `batch`. An error: the server can't be asked at all.
    pub(super) async fn run(
        &mut self,
        units: &[Unit],
        batch: &mut Batch,
        answered: &Answered,
    ) -> Result<Vec<Done>, String> {
        let generation = self.login.generation();
        let mut begun = None;
        if let Some((mut conn, of)) = self.conn.take()
            && of == generation
        {
            let mut round = Round::new(units, &conn);
            match self.ask(&mut conn, &mut round, batch, answered).await {
                Ok(()) => {
                    self.conn = Some((conn, generation));
                    return Ok(round.done);
                }
                // The server was started anew, ends who is silent for so long, or somebody has ended this one: another has the rest.
                Err(_) => begun = Some(round).filter(|round| !round.done.is_empty()),
            }
        }
        let mut conn = self.open().await.map_err(|fault| fault.to_string())?;
        answered.yes();
        let mut round = begun.unwrap_or_else(|| Round::new(units, &conn));
        let asked = self.ask(&mut conn, &mut round, batch, answered).await;
        asked.map_err(|fault| fault.to_string())?;
        self.conn = Some((conn, generation));
        Ok(round.done)
    }

    async fn ask(
        &self,
        conn: &mut Conn,
        round: &mut Round<'_>,
        batch: &mut Batch,
        answered: &Answered,
    ) -> Result<(), Fault> {
        match self.purpose {
            Purpose::BuiltIn => {
                while let Some(rest) = round.rest() {
                    conn.ask(&rest).await?;
                    round.hear(usize::MAX, conn, batch, answered).await?;
                }
                Ok(())
            }
            Purpose::Custom => {
                while let Some(unit) = round.units.first().copied() {
                    let limit = unit.limit;
                    let alone = async {
                        if let Some(bound) = conn.limit(limit) {
                            conn.set(&bound).await?;
                        }
                        conn.ask(&unit.sql).await?;
                        round.hear(1, conn, batch, answered).await
                    };
                    let Ok(heard) = timeout(limit + GRACE, alone).await else {
                        let took = limit + GRACE;
                        let why = format!(
                            "had no answer after {:.1} s, though the server was to end it",
                            took.as_secs_f64()
                        );
                        round.give_up(unit, took, &why);
                        return Err(Fault::Lost(format!("the query {} {why}", unit.name)));
                    };
                    heard?;
                }
                Ok(())
            }
        }
    }

    async fn open(&self) -> Result<Conn, Fault> {
        let custom = self.purpose == Purpose::Custom;
        let mut conn = match self.dialect {
            Dialect::MySql => Conn::MySql(mysql::Conn::open(&self.login, !custom).await?),
            Dialect::Postgres => Conn::Postgres(postgres::Conn::open(&self.login).await?),
        };
        let mut settings: Vec<String> = match (self.dialect, custom) {
            (Dialect::MySql, false) => vec!["SET SESSION lock_wait_timeout = 2".to_owned()],
            (Dialect::MySql, true) => [
                "SET SESSION lock_wait_timeout = 2",
                "SET SESSION time_zone = '+00:00'",
                "SET SESSION TRANSACTION READ ONLY",
            ]
            .map(str::to_owned)
            .to_vec(),
            (Dialect::Postgres, _) => [
                "SET lock_timeout = 2000",
                "SET datestyle = 'ISO, YMD'",
                "SET timezone = 'UTC'",
            ]
            .map(str::to_owned)
            .to_vec(),
        };
        if custom && self.dialect == Dialect::Postgres {
            settings.push("SET default_transaction_read_only = on".to_owned());
        }
        settings.extend(conn.limit(STATEMENT));
        match custom && self.dialect == Dialect::MySql {
            // One statement at a time is all that such a connection takes.
            true => {
                for setting in &settings {
                    conn.set(setting).await?;
                }
            }
            false => conn.set(&settings.join("; ")).await?,
        }
        Ok(conn)
    }
}

/// Units as they are done, the first that is not being the next.
struct Round<'a> {
    units: Vec<&'a Unit>,
    done: Vec<Done>,
}

impl<'a> Round<'a> {
    fn new(units: &'a [Unit], conn: &Conn) -> Self {
        let (version, mariadb) = (conn.version(), conn.is_mariadb());
        let has = |unit: &&Unit| {
            let range = unit.runs_on.as_ref();
            range.is_none_or(|range| range.has(version))
                && unit.mariadb.is_none_or(|only| only == mariadb)
        };
        Self {
            units: units.iter().filter(has).collect(),
            done: Vec::new(),
        }
    }

    /// The statements of all that is left.
    fn rest(&self) -> Option<String> {
        let statements: Vec<&str> = self.units.iter().map(|unit| unit.sql.as_str()).collect();
        (!statements.is_empty()).then(|| statements.join(";\n"))
    }

    /// This one, unless it is done, is not asked again.
    fn give_up(&mut self, unit: &Unit, took: Duration, why: &str) {
        let first = self.units.first();
        if !first.is_some_and(|first| std::ptr::eq(*first, unit)) {
            return;
        }
        self.units.remove(0);
        self.done.push(Done {
            name: unit.name.clone(),
            took,
            why: Some(why.to_owned()),
        });
    }

    /// Reads what was asked for, the statements of `count` units or of all, to its end. What follows one that was refused is left.
    async fn hear(
        &mut self,
        count: usize,
        conn: &mut Conn,
        batch: &mut Batch,
        answered: &Answered,
    ) -> Result<(), Fault> {
        let before = self.units.len();
        let left = before.saturating_sub(count);
        loop {
            let since = Instant::now();
            let answer = conn.next().await?;
            answered.yes();
            let why = match answer {
                Answer::End if self.units.len() == before => {
                    return Err(Fault::Lost("answered nothing to a statement".to_owned()));
                }
                Answer::End => return Ok(()),
                // More answers than statements: those of somebody who wrote several into one.
                _ if self.units.len() == left => continue,
                Answer::Table(table) => {
                    let unit = self.units[0];
                    match &unit.read {
                        Read::Nothing => None,
                        Read::Mapped(mapped) => mapped.read(&table, batch).err(),
                        Read::With(read) => read(&table, batch).err(),
                    }
                }
                Answer::Refused(Fault::Said { code, .. })
                    if self.units[0].nothing == Some(code.as_str()) =>
                {
                    None
                }
                Answer::Refused(fault) => Some(fault.to_string()),
            };
            let unit = self.units.remove(0);
            self.done.push(Done {
                name: unit.name.clone(),
                took: since.elapsed(),
                why,
            });
        }
    }
}
