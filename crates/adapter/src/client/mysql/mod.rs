//! MySQL and MariaDB: the text protocol of version 4.1 and later.
//!
//! ```text
//!   ◀─ greeting      ─▶ (TLS)  ─▶ user, answer   ◀─ OK, or another plugin …   ─▶ statements   ◀─ a result for each
//! ```

mod auth;
mod packet;

use super::{Answer, Class, Column, Fault, Line, Login, Step, Table, Told, line};
use packet::{Reader, packet, put_value};

/// What this client can do (CLIENT_…).
const CAN: u32 = LONG_PASSWORD
    | LONG_FLAG
    | PROTOCOL_41
    | TRANSACTIONS
    | SECURE
    | PLUGIN_AUTH
    | PLUGIN_LONG
    | ATTRIBUTES;
const LONG_PASSWORD: u32 = 1;
const LONG_FLAG: u32 = 1 << 2;
const WITH_DATABASE: u32 = 1 << 3;
const PROTOCOL_41: u32 = 1 << 9;
const TLS: u32 = 1 << 11;
const TRANSACTIONS: u32 = 1 << 13;
const SECURE: u32 = 1 << 15;
const MULTI_STATEMENTS: u32 = 1 << 16;
const MULTI_RESULTS: u32 = 1 << 17;
const PLUGIN_AUTH: u32 = 1 << 19;
const ATTRIBUTES: u32 = 1 << 20;
const PLUGIN_LONG: u32 = 1 << 21;

/// SERVER_MORE_RESULTS_EXISTS.
const MORE: u64 = 8;
/// utf8mb4_general_ci: there since MySQL 5.5.
const UTF8: u8 = 45;
const QUERY: u8 = 3;
/// Rows of one statement, in bytes.
const MOST_BYTES: usize = 64 << 20;
/// The connection ends with these, perhaps long before it was asked: the server is shut down, the session was killed, was silent for too long.
const FATAL: [&str; 5] = ["1053", "1077", "1927", "3169", "4031"];
/// Times that a server may ask for another proof.
const MOST_TURNS: u32 = 8;

/// A connection.
pub(crate) struct Conn {
    line: Line,
    /// Of the packet that comes next.
    number: u8,
    server: Server,
    /// Results of the statements that were sent are still to come.
    pending: bool,
}

/// What it said of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) mariadb: bool,
    /// Major, minor, patch.
    pub(crate) version: (u32, u32, u32),
}

impl Server {
    /// `8.0.36`, `5.5.5-10.11.6-MariaDB-1` (which replicas of old want to see), `11.4.2-MariaDB`.
    pub(crate) fn of(text: &str) -> Self {
        let mariadb = text.contains("MariaDB");
        let text = match mariadb {
            true => text.strip_prefix("5.5.5-").unwrap_or(text),
            false => text,
        };
        let mut parts = text
            .split(|part: char| !part.is_ascii_digit())
            .map(|part| part.parse().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        let version = (next(), next(), next());
        Self { mariadb, version }
    }
}

/// What a greeting said.
struct Greeting {
    server: Server,
    capabilities: u32,
    nonce: Vec<u8>,
}

impl Conn {
    /// Opens one. `many`: a question may have several statements.
    pub(crate) async fn open(login: &Login, many: bool) -> Result<Self, Fault> {
        Self::open_told(login, many, &|_| ()).await
    }

    /// The same, and tells of each step.
    pub(crate) async fn open_told(
        login: &Login,
        many: bool,
        told: Told<'_>,
    ) -> Result<Self, Fault> {
        Self::over(login.dial(told).await?, login, many, told).await
    }

    /// The same, over what is connected to the server.
    pub(super) async fn over(
        line: Line,
        login: &Login,
        many: bool,
        told: Told<'_>,
    ) -> Result<Self, Fault> {
        let mut me = Self {
            line,
            number: 0,
            server: Server::default(),
            pending: false,
        };
        let greeting = me.receive().await?;
        let greeting = greet(&greeting)?;
        me.server = greeting.server;
        let mut can = CAN & greeting.capabilities;
        if many {
            can |= MULTI_STATEMENTS | MULTI_RESULTS;
        }
        if login.database.is_some() {
            can |= WITH_DATABASE;
        }
        let mut head = vec![0; 32];
        head[4..8].copy_from_slice(&(16_u32 << 20).to_le_bytes());
        head[8] = UTF8;
        if line::begins(login, greeting.capabilities & TLS != 0)? {
            can |= TLS;
            head[..4].copy_from_slice(&can.to_le_bytes());
            me.send(&head).await?;
            told(Step::Tls);
            me.line.secure(login).await?;
            told(Step::Auth);
        }
        head[..4].copy_from_slice(&can.to_le_bytes());
        let password = login.password()?;
        let private = login.is_private(&me.line);
        let proof = auth::answer(auth::FIRST, &password, &greeting.nonce, private);
        put_login(&mut head, can, login, &proof.map_err(Fault::Lost)?);
        me.send(&head).await?;
        me.authenticate(&password, greeting.nonce, private).await?;
        me.line.rest();
        Ok(me)
    }

    /// What it is.
    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// Sends statements; [`next`](Self::next) has what becomes of each.
    pub(crate) async fn ask(&mut self, statements: &str) -> Result<(), Fault> {
        self.number = 0;
        let mut inside = Vec::with_capacity(1 + statements.len());
        inside.push(QUERY);
        inside.extend_from_slice(statements.as_bytes());
        self.pending = true;
        self.send(&inside).await
    }

    /// The answer to the next of them.
    pub(crate) async fn next(&mut self) -> Result<Answer, Fault> {
        if !self.pending {
            self.line.rest();
            return Ok(Answer::End);
        }
        let length = self.arrive().await?;
        let first = self.inside(length).first().copied();
        match first {
            Some(0x00) => {
                let mut reader = Reader(&self.inside(length)[1..]);
                reader.encoded()?;
                reader.encoded()?;
                self.pending = reader.number(2)? & MORE != 0;
                self.done(length);
                Ok(Answer::Table(Table::default()))
            }
            Some(0xff) => self.refused(length),
            Some(0xfb) => Err(Fault::lost("wants a file, which it does not get")),
            _ => {
                let columns = Reader(self.inside(length)).encoded()?;
                self.done(length);
                self.table(columns).await
            }
        }
    }

    /// Nothing comes after it.
    fn refused(&mut self, length: usize) -> Result<Answer, Fault> {
        let fault = refusal(self.inside(length));
        self.done(length);
        self.pending = false;
        match &fault {
            Fault::Said { code, .. } if FATAL.contains(&code.as_str()) => {
                Err(Fault::Lost(fault.to_string()))
            }
            _ => Ok(Answer::Refused(fault)),
        }
    }

    async fn table(&mut self, columns: u64) -> Result<Answer, Fault> {
        if columns > 4096 {
            return Err(Fault::lost("sent more columns than a table can have"));
        }
        let mut names = Vec::new();
        for _ in 0..columns {
            let length = self.arrive().await?;
            names.push(column(self.inside(length))?);
            self.done(length);
        }
        let length = self.arrive().await?;
        self.done(length);
        let mut table = Table::new(names);
        loop {
            let length = self.arrive().await?;
            let inside = self.inside(length);
            match inside.first() {
                Some(0xfe) if length < 9 => {
                    let mut reader = Reader(&inside[1..]);
                    reader.number(2)?;
                    self.pending = reader.number(2)? & MORE != 0;
                    self.done(length);
                    return Ok(Answer::Table(table));
                }
                // No value begins so: it would be of 16 MiB and more.
                Some(0xff) => return self.refused(length),
                _ => {}
            }
            let mut reader = Reader(inside);
            for _ in 0..columns {
                table.push(reader.value()?);
            }
            self.done(length);
            if table.bytes() > MOST_BYTES {
                return Err(Fault::Lost(format!(
                    "sent more than {} MiB of rows",
                    MOST_BYTES >> 20
                )));
            }
        }
    }

    async fn authenticate(
        &mut self,
        password: &[u8],
        nonce: Vec<u8>,
        private: bool,
    ) -> Result<(), Fault> {
        let mut nonce = nonce;
        for _ in 0..MOST_TURNS {
            let packet = self.receive().await?;
            match packet.first() {
                Some(0x00) => return Ok(()),
                Some(0xff) => return Err(Fault::Lost(refusal(&packet).to_string())),
                // Of a server from before 4.1.
                Some(0xfe) if packet.len() == 1 => {
                    return Err(Fault::lost("wants a password as before MySQL 4.1"));
                }
                Some(0xfe) => {
                    let mut reader = Reader(&packet[1..]);
                    let plugin = String::from_utf8_lossy(reader.text());
                    nonce = reader.0.strip_suffix(b"\0").unwrap_or(reader.0).to_vec();
                    let proof = auth::answer(&plugin, password, &nonce, private);
                    self.send(&proof.map_err(Fault::Lost)?).await?;
                }
                Some(0x01) => self.more(&packet[1..], password, &nonce, private).await?,
                _ => return Err(Fault::lost("said something else than who may come")),
            }
        }
        Err(Fault::lost("asks for proof again and again"))
    }

    /// caching_sha2_password: it has not seen this user since it was started, and wants the password itself: as it is through what is
    /// encrypted or does not leave the machine, else sealed by its key.
    async fn more(
        &mut self,
        said: &[u8],
        password: &[u8],
        nonce: &[u8],
        private: bool,
    ) -> Result<(), Fault> {
        match said {
            [3] => Ok(()),
            [4] if private || self.line.is_tls() => self.send(&[password, b"\0"].concat()).await,
            [4] => self.send(&[2]).await,
            pem => {
                let sealed = auth::sealed(password, nonce, pem).map_err(Fault::Lost)?;
                self.send(&sealed).await
            }
        }
    }

    async fn send(&mut self, inside: &[u8]) -> Result<(), Fault> {
        let bytes = packet(self.number, inside);
        self.number = self.number.wrapping_add(1);
        self.line.send(&bytes).await
    }

    /// Waits for a packet; returns how long it is inside.
    async fn arrive(&mut self) -> Result<usize, Fault> {
        self.line.fill(4).await?;
        let mut reader = Reader(self.line.filled());
        let length = reader.number(3)?;
        let length = usize::try_from(length).expect("three bytes");
        self.number = reader.byte()?.wrapping_add(1);
        if length == 0xff_ffff {
            return Err(Fault::lost("sent a row of 16 MiB or more"));
        }
        self.line.fill(4 + length).await?;
        Ok(length)
    }

    fn inside(&self, length: usize) -> &[u8] {
        &self.line.filled()[4..4 + length]
    }

    fn done(&mut self, length: usize) {
        self.line.consume(4 + length);
    }

    async fn receive(&mut self) -> Result<Vec<u8>, Fault> {
        let length = self.arrive().await?;
        let inside = self.inside(length).to_vec();
        self.done(length);
        Ok(inside)
    }
}

/// Protocol::HandshakeV10.
fn greet(bytes: &[u8]) -> Result<Greeting, Fault> {
    let mut reader = Reader(bytes);
    match reader.byte()? {
        10 => {}
        0xff => return Err(Fault::Lost(refusal(bytes).to_string())),
        other => {
            return Err(Fault::Lost(format!(
                "speaks version {other} of the protocol, or another one; expected MySQL's 10"
            )));
        }
    }
    let server = Server::of(&String::from_utf8_lossy(reader.text()));
    reader.take(4)?;
    let mut nonce = reader.take(8)?.to_vec();
    reader.take(1)?;
    let low = reader.number(2)?;
    reader.take(3)?;
    let high = reader.number(2)?;
    let capabilities = u32::try_from(high << 16 | low).expect("four bytes");
    if capabilities & (PROTOCOL_41 | SECURE) != PROTOCOL_41 | SECURE {
        return Err(Fault::lost("is older than MySQL 4.1"));
    }
    reader.take(11)?;
    nonce.extend_from_slice(reader.text());
    nonce.truncate(auth::NONCE_BYTES);
    Ok(Greeting {
        server,
        capabilities,
        nonce,
    })
}

/// What follows the head of Protocol::HandshakeResponse41.
fn put_login(out: &mut Vec<u8>, can: u32, login: &Login, proof: &[u8]) {
    out.extend_from_slice(login.user.as_bytes());
    out.push(0);
    // At most 64 bytes: its length is the same in both ways of writing it.
    put_value(out, proof);
    if let Some(database) = &login.database {
        out.extend_from_slice(database.as_bytes());
        out.push(0);
    }
    if can & PLUGIN_AUTH != 0 {
        out.extend_from_slice(auth::FIRST.as_bytes());
        out.push(0);
    }
    if can & ATTRIBUTES != 0 {
        let mut attributes = Vec::new();
        put_value(&mut attributes, b"program_name");
        put_value(&mut attributes, b"podkit");
        put_value(out, &attributes);
    }
}

/// Protocol::ERR_Packet.
fn refusal(bytes: &[u8]) -> Fault {
    let mut reader = Reader(bytes.get(1..).unwrap_or_default());
    let code = reader.number(2).unwrap_or(0).to_string();
    let text = match reader.0.first() {
        Some(b'#') => reader.0.get(6..).unwrap_or_default(),
        _ => reader.0,
    };
    Fault::Said {
        code,
        text: String::from_utf8_lossy(text).into_owned(),
    }
}

/// Protocol::ColumnDefinition41.
fn column(bytes: &[u8]) -> Result<Column, Fault> {
    let mut reader = Reader(bytes);
    for _ in 0..4 {
        reader.value()?;
    }
    let name = reader.value()?.unwrap_or_default();
    reader.value()?;
    // The length of what follows, the character set, the width.
    reader.take(1 + 2 + 4)?;
    let class = match reader.byte()? {
        // TIMESTAMP, DATE, DATETIME.
        7 | 10 | 12 => Class::Time,
        _ => Class::Text,
    };
    Ok(Column {
        name: String::from_utf8_lossy(name).into_owned(),
        class,
    })
}

/// All that is read of what a server sends, of the same bytes.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn read_all(bytes: &[u8]) {
    drop(greet(bytes));
    drop(column(bytes));
    drop(refusal(bytes));
    let mut reader = Reader(bytes);
    while !reader.0.is_empty() && reader.value().is_ok() {}
    drop(auth::sealed(b"password", &[1; auth::NONCE_BYTES], bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let check = |text: &str, mariadb: bool, version| {
            assert_eq!(Server::of(text), Server { mariadb, version }, "{text}");
        };
        check("8.0.36-28", false, (8, 0, 36));
        check("5.5.5-10.11.6-MariaDB-1", true, (10, 11, 6));
        check("11.4.2-MariaDB-log", true, (11, 4, 2));
        check("8.4", false, (8, 4, 0));
        check("", false, (0, 0, 0));
    }

    #[test]
    fn what_a_server_refuses_is_text() {
        let fault = refusal(b"\xff\x15\x04#28000Access denied");
        assert_eq!(fault.to_string(), "answered 1045: Access denied");
        assert_eq!(refusal(b"\xff").to_string(), "answered 0: ");
        assert!(greet(b"\xff\x10\x04Too many connections").is_err());
        assert!(greet(b"SSH-2.0").is_err());
    }
}
