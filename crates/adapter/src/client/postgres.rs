//! PostgreSQL: the simple query of version 3 of the protocol.
//!
//! ```text
//!   ─▶ (may I have TLS ◀─ yes, no)  ─▶ who   ◀─ how to prove it …  ─▶ statements   ◀─ rows, done; rows, done; …; ready
//! ```

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;

use super::{Answer, Class, Column, Fault, Line, Login, Step, Table, Told, line};

/// Rows of one statement, in bytes.
const MOST_BYTES: usize = 64 << 20;

/// A connection.
pub(crate) struct Conn {
    line: Line,
    /// `server_version`, such as `15.8 (Debian 15.8-0+deb12u1)`.
    version: String,
    /// It is not ready for another question.
    pending: bool,
}

/// A message: what it is, and how long it is inside.
type Message = (u8, usize);

impl Conn {
    /// Opens one.
    pub(crate) async fn open(login: &Login) -> Result<Self, Fault> {
        Self::open_told(login, &|_| ()).await
    }

    /// The same, and tells of each step.
    pub(crate) async fn open_told(login: &Login, told: Told<'_>) -> Result<Self, Fault> {
        Self::over(login.dial(told).await?, login, told).await
    }

    /// The same, over what is connected to the server.
    pub(super) async fn over(line: Line, login: &Login, told: Told<'_>) -> Result<Self, Fault> {
        let mut me = Self {
            line,
            version: String::new(),
            pending: false,
        };
        if login.wants_tls() {
            me.ask_tls(login, told).await?;
        }
        let database = login.database.as_deref().unwrap_or(&login.user);
        let who = [
            ("user", login.user.as_str()),
            ("database", database),
            ("application_name", "podkit"),
            ("client_encoding", "UTF8"),
        ];
        me.say(|out| frontend::startup_message(who, out)).await?;
        me.authenticate(login).await?;
        loop {
            let (kind, length) = me.arrive().await?;
            match kind {
                b'Z' => {
                    me.done(length);
                    me.line.rest();
                    return Ok(me);
                }
                b'E' => return Err(Fault::Lost(refusal(me.inside(length)).to_string())),
                b'S' => me.parameter(length),
                _ => {}
            }
            me.done(length);
        }
    }

    /// Its version as a number: 150008 of 15.8, 90624 of 9.6.24.
    pub(crate) fn version(&self) -> u32 {
        version_number(&self.version)
    }

    /// Sends statements; [`next`](Self::next) has what becomes of each.
    pub(crate) async fn ask(&mut self, statements: &str) -> Result<(), Fault> {
        self.pending = true;
        self.say(|out| frontend::query(statements, out)).await
    }

    /// The answer to the next of them.
    pub(crate) async fn next(&mut self) -> Result<Answer, Fault> {
        let mut table = Table::default();
        while self.pending {
            let (kind, length) = self.arrive().await?;
            match kind {
                b'T' => table = Table::new(columns(self.inside(length))?),
                b'D' => values(&mut table, &self.line.filled()[5..5 + length])?,
                b'C' | b'I' => {
                    self.done(length);
                    return Ok(Answer::Table(table));
                }
                b'E' => {
                    let inside = self.inside(length);
                    let fault = refusal(inside);
                    if is_fatal(inside) {
                        return Err(Fault::Lost(fault.to_string()));
                    }
                    self.done(length);
                    return Ok(Answer::Refused(fault));
                }
                b'Z' => self.pending = false,
                b'S' => self.parameter(length),
                b'N' | b'A' => {}
                other => return Err(unexpected(other)),
            }
            self.done(length);
            if table.bytes() > MOST_BYTES {
                return Err(Fault::Lost(format!(
                    "sent more than {} MiB of rows",
                    MOST_BYTES >> 20
                )));
            }
        }
        self.line.rest();
        Ok(Answer::End)
    }

    async fn ask_tls(&mut self, login: &Login, told: Told<'_>) -> Result<(), Fault> {
        let mut out = BytesMut::new();
        frontend::ssl_request(&mut out);
        self.line.send(&out).await?;
        self.line.fill(1).await?;
        let offered = match self.line.filled()[0] {
            b'S' => true,
            b'N' => false,
            _ => return Err(Fault::lost("does not speak PostgreSQL's protocol")),
        };
        self.line.consume(1);
        if line::begins(login, offered)? {
            told(Step::Tls);
            self.line.secure(login).await?;
            told(Step::Auth);
        }
        Ok(())
    }

    async fn authenticate(&mut self, login: &Login) -> Result<(), Fault> {
        let password = login.password()?;
        let mut scram: Option<ScramSha256> = None;
        loop {
            let (kind, length) = self.arrive().await?;
            let inside = self.inside(length).to_vec();
            self.done(length);
            match kind {
                b'E' => return Err(Fault::Lost(refusal(&inside).to_string())),
                b'R' => {}
                b'N' => continue,
                other => return Err(unexpected(other)),
            }
            let (how, rest) = inside.split_at_checked(4).ok_or_else(short)?;
            match how[3] {
                0 => return Ok(()),
                _ if password.is_empty() => {
                    return Err(Fault::lost(
                        "wants a password; expected ;password-file=FILE",
                    ));
                }
                3 if login.is_private(&self.line) => {
                    self.say(|out| frontend::password_message(&password, out))
                        .await?;
                }
                3 => {
                    return Err(Fault::lost(
                        "wants the password as it is, which it gets with tls=verify or over a unix socket only",
                    ));
                }
                5 => {
                    let salt = rest.get(..4).and_then(|salt| salt.try_into().ok());
                    let salt: [u8; 4] = salt.ok_or_else(short)?;
                    let hash = md5_hash(login.user.as_bytes(), &password, salt);
                    self.say(|out| frontend::password_message(hash.as_bytes(), out))
                        .await?;
                }
                10 => {
                    if !rest
                        .split(|byte| *byte == 0)
                        .any(|name| name == SCRAM_SHA_256.as_bytes())
                    {
                        return Err(Fault::lost("wants another proof than SCRAM-SHA-256"));
                    }
                    let begun = ScramSha256::new(&password, ChannelBinding::unsupported());
                    let first = begun.message().to_vec();
                    self.say(|out| frontend::sasl_initial_response(SCRAM_SHA_256, &first, out))
                        .await?;
                    scram = Some(begun);
                }
                11 => {
                    let scram = scram.as_mut().ok_or_else(|| unexpected(b'R'))?;
                    scram.update(rest).map_err(proof)?;
                    let next = scram.message().to_vec();
                    self.say(|out| frontend::sasl_response(&next, out)).await?;
                }
                12 => scram
                    .as_mut()
                    .ok_or_else(|| unexpected(b'R'))?
                    .finish(rest)
                    .map_err(proof)?,
                other => {
                    return Err(Fault::Lost(format!(
                        "wants to authenticate by its way {other}; known are passwords (SCRAM-SHA-256, md5), certificates, peer and trust"
                    )));
                }
            }
        }
    }

    async fn say(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
    ) -> Result<(), Fault> {
        let mut out = BytesMut::new();
        write(&mut out).map_err(|error| Fault::Lost(format!("can't be asked so: {error}")))?;
        self.line.send(&out).await
    }

    /// Waits for a message.
    async fn arrive(&mut self) -> Result<Message, Fault> {
        self.line.fill(5).await?;
        let head = self.line.filled();
        let kind = head[0];
        let length = u32::from_be_bytes(head[1..5].try_into().expect("four bytes"));
        let length = length.checked_sub(4).ok_or_else(short)? as usize;
        self.line.fill(5 + length).await?;
        Ok((kind, length))
    }

    fn inside(&self, length: usize) -> &[u8] {
        &self.line.filled()[5..5 + length]
    }

    fn done(&mut self, length: usize) {
        self.line.consume(5 + length);
    }

    fn parameter(&mut self, length: usize) {
        let mut parts = self.inside(length).split(|byte| *byte == 0);
        if parts.next() == Some(b"server_version") {
            self.version = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn proof(error: std::io::Error) -> Fault {
    Fault::Lost(format!("does not prove to know the password: {error}"))
}

fn unexpected(kind: u8) -> Fault {
    Fault::Lost(format!(
        "sent a message that does not belong there ({:?})",
        char::from(kind)
    ))
}

fn short() -> Fault {
    Fault::lost("sent a message that is too short")
}

/// Cuts `count` bytes off.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], Fault> {
    let (taken, rest) = bytes.split_at_checked(count).ok_or_else(short)?;
    *bytes = rest;
    Ok(taken)
}

fn two(bytes: &mut &[u8]) -> Result<usize, Fault> {
    let taken = take(bytes, 2)?;
    Ok(usize::from(u16::from_be_bytes([taken[0], taken[1]])))
}

/// RowDescription.
fn columns(mut inside: &[u8]) -> Result<Vec<Column>, Fault> {
    let count = two(&mut inside)?;
    let mut columns = Vec::new();
    for _ in 0..count {
        let end = inside
            .iter()
            .position(|byte| *byte == 0)
            .ok_or_else(short)?;
        let name = String::from_utf8_lossy(take(&mut inside, end)?).into_owned();
        // NUL, the table, its column, then the type; its size and modifier, the format.
        take(&mut inside, 1 + 4 + 2)?;
        let kind = take(&mut inside, 4)?;
        let class = match u32::from_be_bytes(kind.try_into().expect("four bytes")) {
            16 => Class::Bool,
            // date, timestamp, timestamptz.
            1082 | 1114 | 1184 => Class::Time,
            _ => Class::Text,
        };
        take(&mut inside, 2 + 4 + 2)?;
        columns.push(Column { name, class });
    }
    Ok(columns)
}

/// DataRow.
fn values(table: &mut Table, mut inside: &[u8]) -> Result<(), Fault> {
    if two(&mut inside)? != table.columns.len() {
        return Err(Fault::lost("sent a row that does not fit its columns"));
    }
    for _ in 0..table.columns.len() {
        let length = take(&mut inside, 4)?;
        let length = i32::from_be_bytes(length.try_into().expect("four bytes"));
        match usize::try_from(length) {
            Ok(length) => table.push(Some(take(&mut inside, length)?)),
            Err(_) => table.push(None),
        }
    }
    Ok(())
}

/// ErrorResponse.
fn refusal(inside: &[u8]) -> Fault {
    Fault::Said {
        code: field(inside, b'C'),
        text: field(inside, b'M'),
    }
}

/// The connection ends with it: somebody has ended it, perhaps long before it was asked.
fn is_fatal(inside: &[u8]) -> bool {
    matches!(&*field(inside, b'V'), "FATAL" | "PANIC")
}

fn field(inside: &[u8], kind: u8) -> String {
    let mut fields = inside.split(|byte| *byte == 0);
    let found = fields.find(|field| field.first() == Some(&kind));
    String::from_utf8_lossy(found.map_or(b"", |field| &field[1..])).into_owned()
}

fn version_number(text: &str) -> u32 {
    let mut parts = text
        .split(|part: char| !part.is_ascii_digit())
        .map(|part| part.parse::<u32>().unwrap_or(0).min(9999));
    let mut next = || parts.next().unwrap_or(0);
    match next() {
        old @ 0..=9 => old * 10_000 + next() * 100 + next(),
        major => major * 10_000 + next(),
    }
}

/// All that is read of what a server sends, of the same bytes.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn read_all(bytes: &[u8]) {
    drop(refusal(bytes));
    is_fatal(bytes);
    let mut table = Table::new(columns(bytes).unwrap_or_default());
    drop(values(&mut table, bytes));
    for row in table.rows() {
        row.text(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version_number("15.8 (Debian 15.8-0+deb12u1)"), 150_008);
        assert_eq!(version_number("9.6.24"), 90_624);
        assert_eq!(version_number("18beta1"), 180_000);
        assert_eq!(version_number(""), 0);
    }

    #[test]
    fn what_a_server_refuses_is_text() {
        let fault = refusal(b"SFATAL\0VFATAL\0C28P01\0Mno such user\0\0");
        assert_eq!(fault.to_string(), "answered 28P01: no such user");
        assert_eq!(refusal(b"").to_string(), "answered : ");
        assert!(is_fatal(b"SFATAL\0VFATAL\0C57P01\0\0") && !is_fatal(b"VERROR\0\0"));
    }
}
