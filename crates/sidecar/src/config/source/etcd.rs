//! etcd by its JSON gateway (`/v3/kv/range`, `/v3/watch`): all keys with a prefix, at one revision, and again whenever one of
//! them changes. The values are files, the rest of the keys their names.
//!
//! The gateway because it needs no gRPC and no generated code; events only wake, the next range has the whole at one revision. So
//! there is nothing to catch up with after a compaction, a restart or a member that is away: whatever ends a watch, a range and a new
//! watch follow, at another member where this one does not answer.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use podkit_dataplane::watch::read_file;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::{Reading, spread};
use crate::config::set::{File, Limits, Set};
use crate::publish::{Client, Url, collect};

const PATIENCE: Duration = Duration::from_secs(10);
/// Between the end of a watch and the next range: a server that ends every watch must not be asked without end.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest line of a watch.
const LINE: usize = 16 << 20;

pub(in crate::config) struct EtcdSource {
    members: Vec<Url>,
    /// The member that is asked.
    at: usize,
    prefix: String,
    client: Client,
    limits: Limits,
    period: Duration,
    /// A user, and the file with the password.
    login: Option<(String, PathBuf)>,
    /// What the login gave; good for all members.
    token: Option<String>,
    revision: i64,
    /// Follows from the revision.
    watch: Option<Incoming>,
    lines: Lines,
}

/// Why etcd did not answer what it was asked.
#[derive(Debug)]
struct Trouble {
    /// A clause that follows the member's name.
    why: String,
    /// Another member may answer.
    elsewhere: bool,
    /// The token has run out, or a change of users or roles has made it void.
    token: bool,
    /// There are no users to log in.
    open: bool,
}

impl Trouble {
    /// The other members would be no better.
    fn everywhere(why: String) -> Self {
        Self {
            elsewhere: false,
            ..why.into()
        }
    }
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self {
            why,
            elsewhere: true,
            token: false,
            open: false,
        }
    }
}

#[derive(Deserialize)]
pub(in crate::config) struct Range {
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
struct Login {
    token: String,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

#[derive(Deserialize)]
struct Watched {
    result: WatchResult,
}

#[derive(Deserialize)]
struct WatchResult {
    #[serde(default)]
    events: Vec<serde::de::IgnoredAny>,
    #[serde(default)]
    canceled: bool,
    #[serde(default)]
    cancel_reason: String,
    /// Not 0 when what was to be followed from is compacted away.
    #[serde(default)]
    compact_revision: String,
}

/// What a watch said.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::config) enum Heard {
    /// No whole line, or a sign of life.
    Nothing,
    /// Something changed.
    News,
    /// It has ended since what it was to follow from is compacted away.
    Compacted,
    /// It has ended.
    End(String),
}

/// The answer to a watch: JSON objects, one a line.
#[derive(Default)]
pub(in crate::config) struct Lines(Vec<u8>);

impl Lines {
    /// Takes bytes as they come, in pieces of any size. What is not understood ends the watch.
    pub(in crate::config) fn push(&mut self, data: &[u8]) -> Heard {
        let fresh = self.0.len();
        self.0.extend_from_slice(data);
        let Some(end) = memchr::memrchr(b'\n', &self.0[fresh..]).map(|at| fresh + at) else {
            return match self.0.len() > LINE {
                true => Heard::End("a line of more than 16 MiB".to_owned()),
                false => Heard::Nothing,
            };
        };
        let mut heard = Heard::Nothing;
        for line in self.0[..end].split(|byte| *byte == b'\n') {
            heard = match serde_json::from_slice::<Watched>(line) {
                Ok(Watched { result }) if result.canceled => {
                    match result.compact_revision.as_str() {
                        "" | "0" => Heard::End(result.cancel_reason),
                        _ => Heard::Compacted,
                    }
                }
                Ok(Watched { result }) if result.events.is_empty() => continue,
                Ok(_) => Heard::News,
                Err(_) => Heard::End(String::from_utf8_lossy(line).chars().take(200).collect()),
            };
            if !matches!(heard, Heard::News) {
                break;
            }
        }
        self.0.drain(..=end);
        heard
    }
}

impl EtcdSource {
    pub(super) fn new(members: &[Url], prefix: &str, reading: &Reading) -> Self {
        Self {
            members: members.to_vec(),
            at: 0,
            prefix: prefix.to_owned(),
            client: reading.client.clone(),
            limits: reading.limits,
            period: reading.period,
            login: reading.etcd_login.clone(),
            token: None,
            revision: 0,
            watch: None,
            lines: Lines::default(),
        }
    }

    pub(super) async fn fetch(&mut self, anew: bool) -> Result<Set, String> {
        // Who asks for everything anew may not believe the watch: one whose peer is gone says nothing either.
        if anew {
            self.watch = None;
        }
        let mut whys = Vec::new();
        for _ in 0..self.members.len() {
            let asked = timeout(PATIENCE, self.range()).await;
            let asked = asked.unwrap_or_else(|_| {
                Err(format!("gave no answer within {} s", PATIENCE.as_secs()).into())
            });
            let trouble = match asked {
                Ok((revision, set)) => {
                    // A watch that runs goes on: whatever came in between is in it too, and costs one more range.
                    self.revision = revision;
                    return Ok(set);
                }
                Err(trouble) => trouble,
            };
            whys.push(format!("{} {}", self.members[self.at], trouble.why));
            self.watch = None;
            if !trouble.elsewhere {
                break;
            }
            self.at = (self.at + 1) % self.members.len();
        }
        Err(whys.join("; "))
    }

    async fn range(&mut self) -> Result<(i64, Set), Trouble> {
        let (key, end) = self.span();
        let body = json!({ "key": key, "range_end": end });
        let answer = self.ask("/v3/kv/range", &body).await?;
        // base64 makes four bytes of three, and there are keys.
        let most = self.limits.bytes * 2 + (64 << 10);
        let body = collect(answer, most).await?;
        let range: Range = serde_json::from_slice(&body)
            .map_err(|error| format!("gave what is no range ({error})"))?;
        read(&range, &self.prefix, self.limits).map_err(Trouble::everywhere)
    }

    /// Asks as the user, who logs in first where that is needed.
    async fn ask(&mut self, path: &str, body: &serde_json::Value) -> Result<Incoming, Trouble> {
        let fresh = self.token.is_none();
        if fresh {
            self.log_in().await?;
        }
        match self.post(path, body).await {
            Err(trouble) if trouble.token && !fresh => {
                self.log_in().await?;
                self.post(path, body).await
            }
            done => done,
        }
    }

    async fn log_in(&mut self) -> Result<(), Trouble> {
        self.token = None;
        let Some((user, file)) = &self.login else {
            return Ok(());
        };
        let password = read_file(file, 64 << 10)
            .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "is not text".to_owned()))
            .map_err(|why| {
                let file = file.display();
                Trouble::everywhere(format!("can't be asked: --etcd-password-file {file} {why}"))
            })?;
        let body = json!({ "name": user, "password": password.trim_end_matches(['\r', '\n']) });
        match self.post("/v3/auth/authenticate", &body).await {
            Ok(answer) => {
                let body = collect(answer, 64 << 10).await?;
                let login: Login = serde_json::from_slice(&body)
                    .map_err(|error| format!("gave what is no token ({error})"))?;
                self.token = Some(login.token);
                Ok(())
            }
            // As etcd's own client does: who may read everything needs no token.
            Err(trouble) if trouble.open => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }

    async fn post(&self, path: &str, body: &serde_json::Value) -> Result<Incoming, Trouble> {
        let url = self.members[self.at].with_target(path);
        let mut fields = vec![
            ("Content-Type", "application/json"),
            // A member that is cut off from the others ends its watches, instead of saying nothing.
            ("Grpc-Metadata-hasleader", "true"),
        ];
        fields.extend(self.token.as_deref().map(|token| ("Authorization", token)));
        let body = body.to_string().into_bytes();
        let answer = self.client.send("POST", &url, &fields, body).await?;
        let status = answer.status().as_u16();
        if status == 200 {
            return Ok(answer.into_body());
        }
        let said = collect(answer.into_body(), 64 << 10).await?;
        let said = serde_json::from_slice(&said).map(|refusal: Refusal| refusal.error);
        Err(self.trouble(path, status, &said.unwrap_or_default()))
    }

    /// What etcd means by a status that is not 200, and the words with it.
    fn trouble(&self, path: &str, status: u16, said: &str) -> Trouble {
        let user = self.login.as_ref().map_or("", |(user, _)| user.as_str());
        let says = |part: &str| said.contains(part);
        let prefix = &self.prefix;
        let why = if says("invalid user ID or password") {
            format!("knows no user {user} with the password in --etcd-password-file")
        } else if says("user name is empty") && user.is_empty() {
            "wants a login; expected --etcd-user and --etcd-password-file".to_owned()
        } else if says("permission denied") {
            format!(
                "lets {user} not read {prefix:?}; expected a role with: etcdctl role grant-permission ROLE read --prefix {prefix:?}"
            )
        } else if said.is_empty() {
            format!("answered {status} at {path}")
        } else {
            format!("answered {status} at {path}: {said}")
        };
        Trouble {
            why,
            elsewhere: status >= 500 || status == 404,
            token: says("invalid auth token") || says("revision of auth store is old"),
            open: says("authentication is not enabled"),
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
            match timeout(PATIENCE, self.ask("/v3/watch", &body)).await {
                Ok(Ok(body)) => {
                    self.watch = Some(body);
                    self.lines = Lines::default();
                }
                // The next range says what is wrong.
                _ => return sleep(spread(self.period)).await,
            }
        }
        let Some(watch) = &mut self.watch else {
            return;
        };
        let why = loop {
            let data = match watch.frame().await {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => break error.to_string(),
                None => break "the answer has ended".to_owned(),
            };
            match self.lines.push(&data) {
                Heard::Nothing => {}
                Heard::News => return,
                Heard::Compacted => {
                    self.watch = None;
                    return;
                }
                Heard::End(why) => break why,
            }
        };
        debug!(member = %self.members[self.at], why, "a watch has ended");
        self.watch = None;
        sleep(PAUSE).await;
    }
}

pub(in crate::config) fn read(
    range: &Range,
    prefix: &str,
    limits: Limits,
) -> Result<(i64, Set), String> {
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
    use proptest::collection::vec;
    use proptest::prelude::*;

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

    const LIFE: &str = r#"{"result":{"header":{"revision":"7"},"created":true}}"#;
    const EVENT: &str =
        r#"{"result":{"header":{"revision":"8"},"events":[{"kv":{"key":"YQ=="}}]}}"#;
    const COMPACTED: &str =
        r#"{"result":{"header":{"revision":"9"},"canceled":true,"compact_revision":"9"}}"#;
    const CANCELED: &str =
        r#"{"result":{"canceled":true,"cancel_reason":"etcdserver: no leader"}}"#;

    #[test]
    fn a_watch_is_heard() {
        let check = |lines: &[&str], expected: Heard| {
            let text = format!("{}\n", lines.join("\n"));
            assert_eq!(Lines::default().push(text.as_bytes()), expected, "{text}");
        };
        let end = |why: &str| Heard::End(why.to_owned());
        check(&[LIFE], Heard::Nothing);
        check(&[LIFE, EVENT, LIFE], Heard::News);
        check(&[LIFE, COMPACTED], Heard::Compacted);
        check(&[EVENT, CANCELED], end("etcdserver: no leader"));
        check(
            &[r#"{"error":{"message":"x"}}"#],
            end(r#"{"error":{"message":"x"}}"#),
        );
        check(&[""], end(""));
    }

    proptest! {
        /// What a watch says does not depend on how the bytes are cut, and no bytes upset it.
        #[test]
        fn any_pieces_are_heard_alike(
            lines in vec(prop_oneof![Just(LIFE), Just(EVENT)], 1..6),
            noise in vec(any::<u8>(), 0..40),
            cut in 1_usize..40,
        ) {
            let text = lines.join("\n") + "\n";
            let mut pieces = Lines::default();
            let heard: Vec<Heard> = text.as_bytes().chunks(cut).map(|piece| pieces.push(piece)).collect();
            prop_assert_eq!(heard.contains(&Heard::News), lines.contains(&EVENT));
            prop_assert!(pieces.0.is_empty());
            for piece in noise.chunks(cut) {
                pieces.push(piece);
            }
        }
    }
}
