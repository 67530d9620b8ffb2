//! Redis, asked over a connection that is kept from one time to the next.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use podkit_dataplane::resp::{Answers, Auth, Greeting, Line, Questions, Value};
use podkit_dataplane::upstream::Pool;
use tokio::time::Instant;

/// Bytes of the answers of one time at most: the list of 100,000 clients has 40 MB.
const MOST_BYTES: usize = 64 << 20;

/// Bytes of a password's file at most.
const PASSWORD_BYTES: u64 = 64 << 10;

/// Who asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Login {
    /// None: the default user.
    pub(crate) user: Option<String>,
    /// Read at each new connection, so that a password that is changed there is the one that is said. None: nothing is said.
    pub(crate) password_file: Option<PathBuf>,
}

impl Login {
    /// Of a source's keys `user` and `password-file`.
    pub(crate) fn of(user: Option<&str>, password_file: Option<PathBuf>) -> Result<Self, String> {
        match (user, &password_file) {
            (Some(_), None) => Err("user needs password-file".to_owned()),
            (Some(""), _) => Err("user is empty".to_owned()),
            _ => Ok(Self {
                user: user.map(str::to_owned),
                password_file,
            }),
        }
    }

    fn greeting(&self, database: u32) -> Result<Greeting, String> {
        let auth = match &self.password_file {
            None => None,
            Some(path) => {
                let user = self.user.clone().unwrap_or_default().into_bytes();
                Some(Auth::Client((user, password(path)?)))
            }
        };
        Ok(Greeting {
            auth,
            database,
            ..Greeting::default()
        })
    }
}

/// Its first line.
pub(crate) fn password(path: &std::path::Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let shown = path.display();
    let mut text = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(PASSWORD_BYTES).read_to_end(&mut text))
        .map_err(|error| format!("can't be asked: {shown} can't be read ({error})"))?;
    let end = text.iter().position(|byte| b"\r\n".contains(byte));
    text.truncate(end.unwrap_or(text.len()));
    match text.is_empty() {
        true => Err(format!(
            "can't be asked: {shown} has no password in its first line"
        )),
        false => Ok(text),
    }
}

/// A server.
pub(crate) struct Redis {
    pool: Rc<Pool>,
    login: Login,
    database: u32,
    line: Option<Line>,
    /// How many connections there were.
    connections: u64,
    /// How long the last one took to open, login included.
    connecting: Duration,
}

impl Redis {
    /// Opens nothing yet.
    pub(crate) fn new(pool: Rc<Pool>, login: Login, database: u32) -> Self {
        Self {
            pool,
            login,
            database,
            line: None,
            connections: 0,
            connecting: Duration::ZERO,
        }
    }

    /// The database that a new connection is in.
    pub(crate) fn database(&self) -> u32 {
        self.database
    }

    /// Asks on the kept connection; on a new one when there is none, or when it was closed meanwhile: then all is asked anew, so that it
    /// must be such that may be done twice. `answered` is told of the first answer. An error is a clause that follows the server's name.
    /// Has no deadline of its own; dropped in the middle, it leaves no connection behind.
    pub(crate) async fn ask(
        &mut self,
        questions: &Questions,
        answered: impl Fn(),
    ) -> Result<Answers, String> {
        let heard = Cell::new(false);
        let hear = || {
            heard.set(true);
            answered();
        };
        if let Some(mut line) = self.line.take() {
            match line.ask(questions, MOST_BYTES, hear).await {
                Ok(answers) => {
                    self.line = Some(line);
                    return Ok(answers);
                }
                Err(why) if heard.get() => return Err(why),
                // It was closed while nothing was asked.
                Err(_) => {}
            }
        }
        let mut line = self.connect().await?;
        let answers = line.ask(questions, MOST_BYTES, hear).await?;
        self.line = Some(line);
        Ok(answers)
    }

    /// The number of the connection, which is another after the server was connected to again, and how long opening it took.
    pub(crate) fn connection(&self) -> (u64, Duration) {
        (self.connections, self.connecting)
    }

    /// The next question is asked on a new connection.
    pub(crate) fn forget(&mut self) {
        self.line = None;
    }

    async fn connect(&mut self) -> Result<Line, String> {
        let since = Instant::now();
        let greeting = self.login.greeting(self.database)?;
        let mut line = Line::open(&self.pool, &greeting).await?;
        // For people who look at CLIENT LIST; who may not say it is heard all the same.
        let mut name = Questions::default();
        name.put(&["CLIENT", "SETNAME", "podkit"]);
        line.ask(&name, MOST_BYTES, || {}).await?;
        self.connections += 1;
        self.connecting = since.elapsed();
        Ok(line)
    }
}

/// What an error says, for people: one line.
pub(crate) fn refusal(value: &Value<'_>) -> Option<String> {
    match value {
        Value::Error(text) => Some(String::from_utf8_lossy(text).trim().to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_what_its_file_says_at_the_time() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p");
        let login = Login::of(Some("me"), Some(file.clone())).unwrap();
        let why = login.greeting(0).unwrap_err();
        assert!(why.contains("/p can't be read (No such file"), "{why}");
        std::fs::write(&file, "\n").unwrap();
        let why = login.greeting(0).unwrap_err();
        assert!(
            why.ends_with("/p has no password in its first line"),
            "{why}"
        );
        for said in ["one", "two two\r\n", "three\nmore"] {
            std::fs::write(&file, said).unwrap();
            let greeting = login.greeting(3).unwrap();
            let password = said.lines().next().unwrap().as_bytes().to_vec();
            assert_eq!(
                greeting.auth,
                Some(Auth::Client((b"me".to_vec(), password)))
            );
            assert_eq!(greeting.database, 3);
        }
        assert_eq!(Login::default().greeting(0).unwrap(), Greeting::default());
        assert!(Login::of(Some("me"), None).is_err());
    }
}
