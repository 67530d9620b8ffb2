//! A connection for who asks for itself: many commands in one write, and their replies.

use std::future::poll_fn;
use std::io::IoSlice;

use super::lane::{Greeting, open};
use super::scan::{Replies, Shape, put_command};
use super::value::Value;
use crate::net::{Buf, Transport};
use crate::upstream::{Pool, Wire};

/// Commands that are asked together.
#[derive(Debug, Clone, Default)]
pub struct Questions {
    bytes: Vec<u8>,
    count: usize,
}

impl Questions {
    /// Adds one; its place among the answers.
    pub fn put<A: AsRef<[u8]>>(&mut self, words: &[A]) -> usize {
        put_command(&mut self.bytes, words);
        self.count += 1;
        self.count - 1
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// The replies, in the order of the commands.
#[derive(Debug, Default)]
pub struct Answers {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Answers {
    /// One of them.
    ///
    /// # Panics
    /// When there were not so many questions.
    pub fn get(&self, at: usize) -> Value<'_> {
        let start = match at {
            0 => 0,
            _ => self.ends[at - 1],
        };
        // Whole it is; what is deeper than anything that Redis says is as good as nothing.
        Value::read(&self.bytes[start..self.ends[at]]).unwrap_or(Value::Nothing)
    }
}

/// A connection that nothing else is on.
#[derive(Debug)]
pub struct Line(Wire);

impl Line {
    /// Opens one, and says who asks. An error is a clause that follows the server's name.
    pub async fn open(pool: &Pool, greeting: &Greeting) -> Result<Self, String> {
        Ok(Self(open(pool, greeting, None).await?))
    }

    /// Asks, and waits for all the answers, which have `most` bytes at most; `heard` is called when the first is there. After an error, or when it
    /// was dropped in the middle, the connection is of no use any more.
    pub async fn ask(
        &mut self,
        questions: &Questions,
        most: usize,
        heard: impl FnOnce(),
    ) -> Result<Answers, String> {
        exchange(&mut self.0, questions, most, heard).await
    }
}

async fn exchange<T: Transport>(
    io: &mut T,
    questions: &Questions,
    most: usize,
    heard: impl FnOnce(),
) -> Result<Answers, String> {
    let broke = |error: std::io::Error| format!("broke off: {error}");
    let (bytes, mut sent) = (&questions.bytes, 0);
    while sent < bytes.len() {
        let part = [IoSlice::new(&bytes[sent..])];
        sent += poll_fn(|cx| io.poll_write(cx, &part))
            .await
            .map_err(broke)?;
    }
    poll_fn(|cx| io.poll_flush(cx)).await.map_err(broke)?;
    let (mut buf, mut scan) = (Buf::small(), Replies::default());
    let (mut answers, mut heard) = (Answers::default(), Some(heard));
    while answers.ends.len() < questions.count {
        buf.reserve(1);
        let count = poll_fn(|cx| io.poll_read(cx, &mut buf))
            .await
            .map_err(broke)?;
        if count == 0 {
            return Err("closed the connection".to_owned());
        }
        while let Some((length, shape)) = scan.next(buf.filled())? {
            if shape != Shape::Push {
                if answers.ends.len() == questions.count {
                    return Err("replied to nothing".to_owned());
                }
                answers.bytes.extend_from_slice(&buf.filled()[..length]);
                answers.ends.push(answers.bytes.len());
            }
            buf.consume(length);
            if let Some(heard) = heard.take() {
                heard();
            }
        }
        if answers.bytes.len() + buf.len() > most {
            return Err(format!("answered more than {most} bytes"));
        }
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::memory;

    /// What comes of answers whose bytes come so many at a time, and how often it was heard.
    async fn asked(answer: &[u8], piece: usize) -> (Result<Answers, String>, u32) {
        let (mut near, mut far) = memory::pair(&[piece], 1 << 16);
        let mut questions = Questions::default();
        assert_eq!(questions.put(&["PING"]), 0);
        assert_eq!(questions.put(&["GET", "a"]), 1);
        let server = async move {
            let got = far.get_until(b"$1\r\na\r\n").await;
            assert_eq!(got, b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
            far.put(answer).await;
            far.end().await;
        };
        let mut heard = 0;
        let (got, ()) = tokio::join!(exchange(&mut near, &questions, 40, || heard += 1), server);
        (got, heard)
    }

    #[tokio::test]
    async fn answers_come_in_order_however_they_are_cut() {
        for piece in [1, 3, 1000] {
            let (got, heard) = asked(b"+PONG\r\n>1\r\n+x\r\n$2\r\n\r\n\r\n", piece).await;
            let answers = got.unwrap();
            assert_eq!(answers.get(0), Value::Text(b"PONG"));
            assert_eq!(answers.get(1), Value::Text(b"\r\n"));
            assert_eq!(heard, 1);
        }
    }

    #[tokio::test]
    async fn what_is_wrong_with_them_is_told() {
        let check = async |answer: &str, why: &str, heard: u32| {
            let (got, told) = asked(answer.as_bytes(), 50).await;
            assert_eq!((got.unwrap_err().as_str(), told), (why, heard), "{answer}");
        };
        check("", "closed the connection", 0).await;
        check("+PONG\r\n", "closed the connection", 1).await;
        check("+PONG\r\n+a\r\n+b\r\n", "replied to nothing", 1).await;
        check("HTTP/1.1 400\r\n", "it does not speak RESP", 0).await;
        let long = format!("+PONG\r\n${}\r\n{}", 50, "x".repeat(60));
        check(&long, "answered more than 40 bytes", 1).await;
    }
}
