//! etcd by its JSON gateway (`/v3/kv/range`, `/v3/watch`): all keys with a prefix, at one revision, and again whenever one of
//! them changes. The values are files, the rest of the keys their names.
//!
//! The gateway because it needs no gRPC and no generated code; events only wake, the next range has the whole at one revision.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use super::{Reading, spread};
use crate::config::set::{File, Limits, Set};
use crate::publish::{Client, Url, collect};

const PATIENCE: Duration = Duration::from_secs(10);
/// The longest line of a watch.
const LINE: usize = 16 << 20;

pub(in crate::config) struct EtcdSource {
    url: Url,
    prefix: String,
    client: Client,
    limits: Limits,
    period: Duration,
    revision: i64,
    /// Follows from the revision.
    watch: Option<Incoming>,
    /// What came of it that is no whole line yet.
    line: Vec<u8>,
}

#[derive(Deserialize)]
struct Range {
    header: Header,
    #[serde(default)]
    kvs: Vec<KeyValue>,
}

#[derive(Deserialize)]
struct Header {
    revision: String,
}

#[derive(Deserialize)]
struct KeyValue {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct Watched {
    result: Option<WatchResult>,
}

#[derive(Deserialize)]
struct WatchResult {
    #[serde(default)]
    events: Vec<serde::de::IgnoredAny>,
}

impl EtcdSource {
    pub(super) fn new(url: &Url, prefix: &str, reading: &Reading) -> Self {
        Self {
            url: url.clone(),
            prefix: prefix.to_owned(),
            client: reading.client.clone(),
            limits: reading.limits,
            period: reading.period,
            revision: 0,
            watch: None,
            line: Vec::new(),
        }
    }

    pub(super) async fn fetch(&mut self) -> Result<Set, String> {
        let asked = timeout(PATIENCE, self.range()).await;
        let asked = asked
            .unwrap_or_else(|_| Err(format!("gave no answer within {} s", PATIENCE.as_secs())));
        let (revision, set) = asked.map_err(|why| format!("{} {why}", self.url))?;
        // A watch that runs goes on: whatever came in between is in it too, and costs one more range.
        self.revision = revision;
        Ok(set)
    }

    async fn range(&self) -> Result<(i64, Set), String> {
        let (key, end) = self.span();
        let body = json!({ "key": key, "range_end": end });
        let answer = self.post("/v3/kv/range", &body).await?;
        // base64 makes four bytes of three, and there are keys.
        let most = self.limits.bytes * 2 + (64 << 10);
        let body = collect(answer, most).await?;
        let range: Range = serde_json::from_slice(&body)
            .map_err(|error| format!("gave what is no range ({error})"))?;
        read(&range, &self.prefix, self.limits)
    }

    async fn post(&self, path: &str, body: &serde_json::Value) -> Result<Incoming, String> {
        let url = self.url.with_target(path);
        let fields = [("Content-Type", "application/json")];
        let answer = self
            .client
            .send("POST", &url, &fields, body.to_string().into_bytes());
        let answer = answer.await?;
        match answer.status().as_u16() {
            200 => Ok(answer.into_body()),
            status => Err(format!("answered {status} at {path}")),
        }
    }

    /// The first key, and the first behind those with the prefix; base64.
    fn span(&self) -> (String, String) {
        let bytes = self.prefix.as_bytes();
        // "\0" as key and end is all keys.
        let key = if bytes.is_empty() { &[0][..] } else { bytes };
        let mut end = bytes.to_vec();
        while end.last() == Some(&0xff) {
            end.pop();
        }
        match end.last_mut() {
            Some(last) => *last += 1,
            None => end.push(0),
        }
        (BASE64.encode(key), BASE64.encode(end))
    }

    pub(super) async fn changed(&mut self) {
        if self.watch.is_none() {
            let (key, end) = self.span();
            let from = (self.revision + 1).to_string();
            let body = json!({ "create_request": { "key": key, "range_end": end, "start_revision": from } });
            match timeout(PATIENCE, self.post("/v3/watch", &body)).await {
                Ok(Ok(body)) => {
                    self.watch = Some(body);
                    self.line.clear();
                }
                // The next range says what is wrong.
                _ => return tokio::time::sleep(spread(self.period)).await,
            }
        }
        let Some(watch) = &mut self.watch else {
            return;
        };
        let line = &mut self.line;
        while let Some(Ok(frame)) = watch.frame().await {
            let Ok(data) = frame.into_data() else {
                continue;
            };
            line.extend_from_slice(&data);
            let Some(end) = line.iter().rposition(|byte| *byte == b'\n') else {
                if line.len() > LINE {
                    break;
                }
                continue;
            };
            // Not an event (the watch is there, a sign of life): go on. What is not understood ends the watch.
            let events = line[..end].split(|byte| *byte == b'\n').map(|line| {
                let watched: Watched = serde_json::from_slice(line).ok()?;
                Some(watched.result?.events.len())
            });
            let Some(events) = events.sum::<Option<usize>>() else {
                break;
            };
            line.drain(..=end);
            if events > 0 {
                return;
            }
        }
        self.watch = None;
        // Not at once: a server that ends every watch must not be asked without end.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn read(range: &Range, prefix: &str, limits: Limits) -> Result<(i64, Set), String> {
    let revision = range.header.revision.parse();
    let revision =
        revision.map_err(|_| format!("gave the revision {:?}", range.header.revision))?;
    let mut set = Set::default();
    for pair in &range.kvs {
        let decode = |text: &str| {
            BASE64
                .decode(text)
                .map_err(|error| format!("gave no base64 ({error})"))
        };
        let key = String::from_utf8(decode(&pair.key)?);
        let key = key.map_err(|_| "has a key that is not UTF-8".to_owned())?;
        let name = key
            .strip_prefix(prefix)
            .unwrap_or(&key)
            .trim_start_matches('/');
        // The key that is the prefix itself, or ends like a directory, is nothing to write.
        if name.is_empty() || name.ends_with('/') {
            continue;
        }
        set.add(name, File::new(decode(&pair.value)?), limits)?;
    }
    Ok((revision, set))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_names_behind_the_prefix() {
        let text = json!({ "header": { "revision": "7" }, "kvs": [
            { "key": BASE64.encode("app/"), "value": "" },
            { "key": BASE64.encode("app/d/b"), "value": BASE64.encode("2") },
            { "key": BASE64.encode("app/a") },
        ] });
        let limits = Limits { files: 9, bytes: 9 };
        let range: Range = serde_json::from_value(text).unwrap();
        let (revision, set) = read(&range, "app/", limits).unwrap();
        let found: Vec<_> = set
            .files()
            .map(|(name, file)| (name, file.bytes.as_slice()))
            .collect();
        assert_eq!(
            (revision, found),
            (7, vec![("a", &b""[..]), ("d/b", &b"2"[..])])
        );
        let range: Range = serde_json::from_value(json!({ "header": { "revision": "1" }, "kvs": [
            { "key": BASE64.encode("app/../x") },
        ] }))
        .unwrap();
        assert!(
            read(&range, "app/", limits)
                .unwrap_err()
                .contains("begins with \"..\"")
        );
    }
}
