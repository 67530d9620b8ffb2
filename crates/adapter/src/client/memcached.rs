//! memcached, asked over a connection that is kept from one time to the next.

use std::future::poll_fn;
use std::io::IoSlice;
use std::rc::Rc;

use podkit_dataplane::net::{Buf, Transport};
use podkit_dataplane::upstream::{Pool, Wire};

/// Bytes of the answers of one time at most; all that there is has a tenth.
const MOST_BYTES: usize = 1 << 20;

/// A server.
pub(crate) struct Memcached {
    pool: Rc<Pool>,
    wire: Option<Wire>,
}

impl Memcached {
    /// Opens nothing yet.
    pub(crate) fn new(pool: Rc<Pool>) -> Self {
        Self { pool, wire: None }
    }

    /// Asks commands whose answers end with a line `END` or are one line that says what is wrong, or `VERSION …`; all in one write. On a new
    /// connection when there is none, or when it was closed meanwhile. `answered` is told of the first bytes. An error is a clause that
    /// follows the server's name. Has no deadline of its own; dropped in the middle, it leaves no connection behind.
    pub(crate) async fn ask(
        &mut self,
        commands: &[&str],
        answered: impl Fn(),
    ) -> Result<Vec<String>, String> {
        if let Some(mut wire) = self.wire.take()
            && let Ok(answers) = exchange(&mut wire, commands, &answered).await
        {
            self.wire = Some(wire);
            return Ok(answers);
        }
        let opened = self.pool.connect_alone(None).await;
        let mut wire = opened.map_err(|error| error.to_string())?;
        let answers = exchange(&mut wire, commands, &answered).await?;
        self.wire = Some(wire);
        Ok(answers)
    }
}

async fn exchange<T: Transport>(
    io: &mut T,
    commands: &[&str],
    answered: &impl Fn(),
) -> Result<Vec<String>, String> {
    let broke = |error: std::io::Error| format!("broke off: {error}");
    let lines: String = commands
        .iter()
        .map(|command| format!("{command}\r\n"))
        .collect();
    let mut sent = 0;
    while sent < lines.len() {
        let part = [IoSlice::new(&lines.as_bytes()[sent..])];
        sent += poll_fn(|cx| io.poll_write(cx, &part))
            .await
            .map_err(broke)?;
    }
    poll_fn(|cx| io.poll_flush(cx)).await.map_err(broke)?;
    let (mut buf, mut reading) = (Buf::small(), Reading::of(commands.len()));
    while !reading.is_done() {
        buf.reserve(1);
        let count = poll_fn(|cx| io.poll_read(cx, &mut buf))
            .await
            .map_err(broke)?;
        if count == 0 {
            return Err("closed the connection".to_owned());
        }
        answered();
        reading.take(&mut buf)?;
    }
    Ok(reading.answers)
}

/// Answers that come in.
struct Reading {
    wanted: usize,
    answers: Vec<String>,
    /// The one that is not whole yet.
    answer: String,
    bytes: usize,
}

impl Reading {
    fn of(wanted: usize) -> Self {
        Self {
            wanted,
            answers: Vec::with_capacity(wanted),
            answer: String::new(),
            bytes: 0,
        }
    }

    fn is_done(&self) -> bool {
        self.answers.len() == self.wanted
    }

    /// Takes the lines that are whole.
    fn take(&mut self, buf: &mut Buf) -> Result<(), String> {
        while let Some(end) = memchr::memchr(b'\n', buf.filled()) {
            if self.is_done() {
                return Err("answered more than was asked".to_owned());
            }
            let line = String::from_utf8_lossy(&buf.filled()[..end]);
            let line = line.trim_end();
            if line != "END" {
                self.answer.push_str(line);
                self.answer.push('\n');
            }
            if ends(line) {
                self.answers.push(std::mem::take(&mut self.answer));
            }
            self.bytes += end + 1;
            buf.consume(end + 1);
        }
        match self.bytes + buf.len() > MOST_BYTES {
            true => Err(format!("answered more than {MOST_BYTES} bytes")),
            false => Ok(()),
        }
    }
}

/// What comes of three answers, however they are cut.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) fn read_all(bytes: &[u8]) {
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut buf, mut reading) = (Buf::small(), Reading::of(3));
        for piece in pieces {
            buf.reserve(piece.len());
            buf.put(piece);
            if let Err(why) = reading.take(&mut buf) {
                return (reading.answers, Some(why));
            }
        }
        (reading.answers, None)
    };
    let whole = read(&mut std::iter::once(bytes.get(1..).unwrap_or_default()));
    let cut = read(&mut podkit_foundation::fuzz::pieces(bytes));
    assert_eq!(cut, whole, "the pieces matter");
}

/// It is the last line of an answer.
fn ends(line: &str) -> bool {
    let words = ["END", "ERROR", "CLIENT_ERROR", "SERVER_ERROR", "VERSION"];
    let first = line.split(' ').next().unwrap_or_default();
    words.contains(&first)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of two answers whose bytes come so many at a time.
    fn read(answer: &str, piece: usize) -> Result<Vec<String>, String> {
        let (mut buf, mut reading) = (Buf::small(), Reading::of(2));
        for piece in answer.as_bytes().chunks(piece) {
            buf.put(piece);
            reading.take(&mut buf)?;
        }
        assert!(reading.is_done());
        Ok(reading.answers)
    }

    #[test]
    fn answers_are_told_apart_however_they_are_cut() {
        for piece in [1, 5, 1000] {
            let got = read("STAT a 1\r\nSTAT b END\r\nEND\r\nVERSION 1.6\r\n", piece);
            assert_eq!(got.unwrap(), ["STAT a 1\nSTAT b END\n", "VERSION 1.6\n"]);
        }
        let got = read("ERROR\r\nCLIENT_ERROR no\r\n", 1000);
        assert_eq!(got.unwrap(), ["ERROR\n", "CLIENT_ERROR no\n"]);
    }

    #[test]
    fn what_is_too_much_is_told() {
        let why = |answer: &str| read(answer, 10_000).unwrap_err();
        assert_eq!(why("END\r\nEND\r\nEND\r\n"), "answered more than was asked");
        let long = "answered more than 1048576 bytes";
        assert_eq!(why(&"STAT a 1\r\n".repeat(200_000)), long);
        assert_eq!(why(&"x".repeat(MOST_BYTES + 1)), long);
    }
}
