//! `memcached://`: the server answers; optionally a key is written and read.

use podkit_dataplane::tls::Inside;

use super::redis::{now, own_key};
use super::{Prober, Probing};
use crate::health::link::{Ground, Line, Link};
use crate::health::phases::{Phase, Phases};
use crate::health::spec::Spec;

/// Bytes of an answer at most.
const MOST_BYTES: usize = 4096;

pub(super) struct Memcached {
    link: Link,
    canary: Option<String>,
}

impl Memcached {
    pub(super) fn new(spec: &Spec, ground: &Ground) -> Result<Self, String> {
        let canary = spec.option("canary").map(|key| own_key(key, &spec.name));
        // memcached's bound, and what separates words in its protocol.
        let right = |key: &&String| {
            key.len() <= 250
                && !key.contains(|part: char| part.is_whitespace() || part.is_control())
        };
        if canary.is_some() && canary.as_ref().filter(right).is_none() {
            return Err("canary= is not a key: it has a space or is too long".to_owned());
        }
        Ok(Self {
            link: Link::new(spec, ground, Inside::Any)?,
            canary,
        })
    }

    async fn ask(&mut self, phases: &Phases) -> Result<String, String> {
        let mut line = match self.link.take() {
            Some(line) => line,
            None => self.link.open(phases).await?,
        };
        phases.enter(Phase::Query);
        let mut found = self.query(&mut line).await;
        if found.is_err() && line.used {
            // It may have been closed meanwhile.
            line = self.link.open(phases).await?;
            phases.enter(Phase::Query);
            found = self.query(&mut line).await;
        }
        let found = found?;
        self.link.keep(line);
        Ok(found)
    }

    async fn query(&self, line: &mut Line) -> Result<String, String> {
        let version = said(line, "version\r\n", "\r\n").await?;
        let version = version
            .strip_prefix("VERSION ")
            .ok_or_else(|| format!("says {version}"))?
            .to_owned();
        let Some(key) = &self.canary else {
            return Ok(format!("is memcached {version}"));
        };
        let value = now();
        let set = format!("set {key} 0 60 {}\r\n{value}\r\n", value.len());
        let stored = said(line, &set, "\r\n").await?;
        if stored != "STORED" {
            return Err(format!("says {stored} to a key that is written"));
        }
        // An error ends without END.
        let got = said(line, &format!("get {key}\r\n"), "\r\n").await?;
        let rest = match got.starts_with("VALUE ") {
            true => said(line, "", "\r\nEND\r\n").await?,
            false => String::new(),
        };
        match rest == value {
            true => Ok(format!("is memcached {version}, keeps what is written")),
            false => Err(format!("does not have what was written to {key}")),
        }
    }
}

impl Prober for Memcached {
    fn probe<'a>(&'a mut self, phases: &'a Phases) -> Probing<'a> {
        Box::pin(self.ask(phases))
    }
}

/// What comes up to `end` when this is said.
async fn said(line: &mut Line, words: &str, end: &str) -> Result<String, String> {
    line.send(words.as_bytes()).await?;
    let find = |bytes: &[u8]| {
        let at = bytes
            .windows(end.len())
            .position(|part| part == end.as_bytes());
        Ok(at)
    };
    let length = line.read(MOST_BYTES, find).await?;
    let text = String::from_utf8_lossy(&line.input.filled()[..length]).into_owned();
    line.input.consume(length + end.len());
    Ok(text)
}
