//! Asks a server on a connection that no client is on: whether it is well, and to be emptied.

use std::rc::Rc;
use std::time::Duration;

use super::lane::{Greeting, ask, open};
use super::scan::put_command;
use crate::upstream::{Pool, Wire};

/// Keeps its connection from one question to the next.
#[derive(Debug)]
pub struct Asker {
    pool: Rc<Pool>,
    greeting: Greeting,
    /// How long a question may take, a dial included.
    patience: Duration,
    wire: Option<Wire>,
}

impl Asker {
    /// Opens nothing yet.
    pub fn new(pool: Rc<Pool>, greeting: Greeting, patience: Duration) -> Self {
        Self {
            pool,
            greeting,
            patience,
            wire: None,
        }
    }

    /// Whether it serves: PING is answered, or the server wants to know first who asks.
    pub async fn ping(&mut self) -> Result<(), String> {
        let reply = self.ask(&[b"PING"]).await?;
        let serves = [&b"+PONG"[..], b"-NOAUTH", b"-NOPERM"];
        match serves.iter().any(|begin| reply.starts_with(begin)) {
            true => Ok(()),
            false => Err(shown(&reply)),
        }
    }

    /// Removes all keys of all databases, and makes sure, in the same moment, that none is left.
    pub async fn empty(&mut self) -> Result<(), String> {
        let steps: [&[&[u8]]; 3] = [&[b"MULTI"], &[b"FLUSHALL"], &[b"INFO", b"keyspace"]];
        for words in steps {
            let reply = self.ask(words).await?;
            if reply.first() != Some(&b'+') {
                self.wire = None;
                return Err(shown(&reply));
            }
        }
        is_empty(&self.ask(&[b"EXEC"]).await?)
    }

    async fn ask(&mut self, words: &[&[u8]]) -> Result<Vec<u8>, String> {
        let mut command = Vec::new();
        put_command(&mut command, words);
        // Put back only when its reply was read: else the next question would have that.
        let kept = self.wire.take();
        let asked = async {
            let mut wire = match kept {
                Some(wire) => wire,
                None => open(&self.pool, &self.greeting, None).await?,
            };
            let reply = ask(&mut wire, &command, self.patience).await?;
            Ok::<_, String>((wire, reply))
        };
        let (wire, reply) = tokio::time::timeout(self.patience, asked)
            .await
            .unwrap_or_else(|_| Err(format!("no reply for {} ms", self.patience.as_millis())))?;
        self.wire = Some(wire);
        Ok(reply)
    }
}

/// The reply to EXEC of FLUSHALL and INFO keyspace.
fn is_empty(reply: &[u8]) -> Result<(), String> {
    if !reply.starts_with(b"*2\r\n+OK\r\n") {
        return Err(shown(reply));
    }
    match reply.windows(3).any(|part| part == b"\ndb") {
        true => Err(format!("keys are left: {}", shown(reply))),
        false => Ok(()),
    }
}

/// In a line.
fn shown(reply: &[u8]) -> String {
    let text = String::from_utf8_lossy(&reply[..reply.len().min(200)]);
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_seen() {
        let reply = |info: &str| format!("*2\r\n+OK\r\n${}\r\n{info}\r\n", info.len()).into_bytes();
        assert_eq!(is_empty(&reply("# Keyspace\r\n")), Ok(()));
        let left = is_empty(&reply("# Keyspace\r\ndb3:keys=1,expires=0\r\n")).unwrap_err();
        assert!(left.contains("db3:keys=1"), "{left}");
        let refused = b"*2\r\n-READONLY You can't write\r\n$12\r\n# Keyspace\r\n\r\n";
        assert!(is_empty(refused).unwrap_err().contains("READONLY"));
        assert!(is_empty(b"-EXECABORT x\r\n").is_err());
    }
}
