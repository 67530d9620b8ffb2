//! Asks a server on a connection that no client is on: whether it is well, and to be emptied.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::rc::Rc;
use std::time::Duration;

use super::reply::{Replies, Until};
use crate::net::Buf;
use crate::resp::stream::exchange;
use crate::upstream::{Pool, Wire};

/// Some versions count seconds: their flush_all leaves what was stored in the running one.
const SECOND: Duration = Duration::from_millis(1100);

/// Keeps its connection from one question to the next.
#[derive(Debug)]
pub struct Asker {
    pool: Rc<Pool>,
    /// How long a question may take, a dial included.
    patience: Duration,
    wire: Option<Wire>,
}

impl Asker {
    /// Opens nothing yet.
    pub fn new(pool: Rc<Pool>, patience: Duration) -> Self {
        Self {
            pool,
            patience,
            wire: None,
        }
    }

    /// Whether it serves.
    pub async fn ping(&mut self) -> Result<(), String> {
        self.expect("version", "VERSION ").await
    }

    /// Removes all keys, and makes sure that one that was stored just before is gone.
    pub async fn empty(&mut self) -> Result<(), String> {
        let key = format!("podkit-{:016x}", RandomState::new().hash_one(0));
        let stored = self.ask(&format!("set {key} 0 60 1\r\n1")).await?;
        // One that is full may refuse it (`-M`): then nothing can be seen, and a second is waited for.
        let is_stored = stored == "STORED";
        self.expect("flush_all", "OK").await?;
        let get = format!("get {key}");
        if is_stored && self.ask(&get).await? == "END" {
            return Ok(());
        }
        tokio::time::sleep(SECOND).await;
        self.expect("flush_all", "OK").await?;
        match self.ask(&get).await?.as_str() {
            "END" => Ok(()),
            _ => Err("keys are left after flush_all".to_owned()),
        }
    }

    async fn expect(&mut self, line: &str, begin: &str) -> Result<(), String> {
        let reply = self.ask(line).await?;
        match reply.starts_with(begin) {
            true => Ok(()),
            false => Err(format!("{line}: {reply}")),
        }
    }

    /// The reply to a line, without the end of its last line.
    async fn ask(&mut self, line: &str) -> Result<String, String> {
        let command = format!("{line}\r\n");
        // Put back only when its reply was read: else the next question would have that.
        let kept = self.wire.take();
        let asked = async {
            let mut wire = match kept {
                Some(wire) => wire,
                None => {
                    let opened = self.pool.connect_alone(None).await;
                    opened.map_err(|error| error.to_string())?
                }
            };
            let mut scan = Replies::default();
            let find = |buf: &mut Buf| {
                let found = scan.next(buf.filled(), Until::Itself)?;
                Ok(found.map(|length| buf.filled()[..length].to_vec()))
            };
            let reply = exchange(&mut wire, command.as_bytes(), self.patience, find).await?;
            Ok::<_, String>((wire, reply))
        };
        let (wire, reply) = tokio::time::timeout(self.patience, asked)
            .await
            .unwrap_or_else(|_| Err(format!("no reply for {} ms", self.patience.as_millis())))?;
        self.wire = Some(wire);
        Ok(String::from_utf8_lossy(&reply).trim_end().to_owned())
    }
}
