//! An HTTP server: a file, an archive or a map, asked for by ETag, held by the server until there is news where it can do that.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use flate2::read::GzDecoder;
use podkit_dataplane::watch::read_file;
use tokio::time::{Instant, timeout};

use super::{Form, Reading, spread};
use crate::config::set::{File, Limits, Set};
use crate::publish::{Client, Url, collect};

/// How long the server is asked to hold a request (RFC 7240 section 4.3).
const WAIT: Duration = Duration::from_secs(50);
/// How long an answer may take beyond that.
const PATIENCE: Duration = Duration::from_secs(20);
/// A server that took this long has held the request.
const HELD: Duration = Duration::from_secs(1);
/// Between news of a server that holds requests: it may have news all the time.
const BREATH: Duration = Duration::from_millis(50);

pub(in crate::config) struct HttpSource {
    url: Url,
    form: Form,
    name: String,
    client: Client,
    limits: Limits,
    token_file: Option<PathBuf>,
    period: Duration,
    etag: Option<String>,
    /// The server has held the last request that it could hold.
    holds: bool,
    next: Next,
}

/// When the server is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// It holds requests, or has not been asked yet for what it could hold.
    AtOnce,
    /// It had news without holding this one, and says that it would have held it.
    Soon,
    /// The same, but it says nothing: it may not hold requests at all.
    Later,
    /// It does not hold requests.
    Period,
}

impl HttpSource {
    pub(super) fn new(url: &Url, form: Form, name: &str, reading: &Reading) -> Self {
        Self {
            url: url.clone(),
            form,
            name: name.to_owned(),
            client: reading.client.clone(),
            limits: reading.limits,
            token_file: reading.token_file.clone(),
            period: reading.period,
            etag: None,
            holds: false,
            next: Next::Period,
        }
    }

    pub(super) async fn fetch(&mut self, anew: bool) -> Result<Option<Set>, String> {
        let shown = self.url.to_string();
        let shown = shown.split('?').next().unwrap_or_default().to_owned();
        if anew {
            self.etag = None;
        }
        let patience = match self.etag {
            Some(_) => WAIT + PATIENCE,
            None => PATIENCE,
        };
        let asked = timeout(patience, self.ask()).await;
        let asked = asked
            .unwrap_or_else(|_| Err(format!("gave no answer within {} s", patience.as_secs())));
        asked.map_err(|why| {
            (self.holds, self.next) = (false, Next::Period);
            format!("{shown} {why}")
        })
    }

    async fn ask(&mut self) -> Result<Option<Set>, String> {
        let token = self.token_file.as_ref().map(|path| {
            let bytes = read_file(path, 64 << 10);
            let text = bytes
                .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "is not text".to_owned()));
            text.map(|text| format!("Bearer {}", text.trim()))
                .map_err(|why| format!("can't be asked: --token-file {} {why}", path.display()))
        });
        let token = token.transpose()?;
        let wait = format!("wait={}", WAIT.as_secs());
        let mut fields = vec![("Accept", "*/*")];
        fields.extend(token.as_deref().map(|token| ("Authorization", token)));
        if let Some(etag) = &self.etag {
            fields.push(("If-None-Match", etag.as_str()));
            fields.push(("Prefer", &wait));
        }
        let begun = Instant::now();
        let answer = self
            .client
            .send("GET", &self.url, &fields, Vec::new())
            .await?;
        let held = begun.elapsed() >= HELD;
        let status = answer.status().as_u16();
        let field = |name: &str| {
            let value = answer.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let (etag, kind, to) = (field("etag"), field("content-type"), field("location"));
        // RFC 7240 section 3: it has held, or would have without news.
        let says = field("preference-applied").is_some_and(|applied| applied.contains("wait"));
        self.holds |= says;
        (self.holds, self.next) = match (self.etag.is_some(), status) {
            (true, _) if held => (true, Next::AtOnce),
            // It may have had news just now; twice in a row it hasn't held either.
            (true, 200) if says => (true, Next::Soon),
            (true, 200) if self.holds || self.next == Next::AtOnce => (self.holds, Next::Later),
            (false, 200) if etag.is_some() => (self.holds, Next::AtOnce),
            _ => (false, Next::Period),
        };
        match status {
            200 => {}
            304 => return Ok(None),
            300..=399 => {
                let to = to.unwrap_or_default();
                return Err(format!(
                    "answered {status} to {to:?}, which is not followed; name that URL"
                ));
            }
            401 | 403 if self.token_file.is_none() => {
                return Err(format!(
                    "answered {status}; expected a --token-file that it accepts"
                ));
            }
            _ => return Err(format!("answered {status}")),
        }
        let body = collect(answer.into_body(), self.limits.bytes).await?;
        let tar = kind
            .as_deref()
            .is_some_and(|kind| kind.starts_with("application/x-tar"));
        let form = if tar { Form::Tar } else { self.form };
        let set = read(&body, form, &self.name, self.limits)?;
        // Only what was understood is not asked for again.
        self.etag = etag;
        Ok(Some(set))
    }

    pub(super) async fn changed(&mut self) {
        match self.next {
            Next::AtOnce => {}
            Next::Soon => tokio::time::sleep(BREATH).await,
            Next::Later => tokio::time::sleep(HELD).await,
            Next::Period => tokio::time::sleep(spread(self.period)).await,
        }
    }
}

/// The files of a body.
pub(in crate::config) fn read(
    body: &[u8],
    form: Form,
    name: &str,
    limits: Limits,
) -> Result<Set, String> {
    let mut set = Set::default();
    match form {
        Form::File => set.add(name, File::new(body.to_vec()), limits)?,
        Form::Map => {
            let map: std::collections::BTreeMap<String, String> = serde_json::from_slice(body)
                .map_err(|error| format!("is no JSON object of names and texts ({error})"))?;
            for (name, text) in map {
                set.add(&name, File::new(text.into_bytes()), limits)?;
            }
        }
        Form::Tar if body.starts_with(&[0x1f, 0x8b]) => {
            // The files count, not their headers; a bomb ends at the bound.
            let most = limits
                .bytes
                .saturating_add(limits.files as u64 * 2048 + 10_240);
            read_tar(GzDecoder::new(body).take(most), limits, &mut set)?;
        }
        Form::Tar => read_tar(body, limits, &mut set)?,
    }
    Ok(set)
}

fn read_tar(bytes: impl std::io::Read, limits: Limits, set: &mut Set) -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("is no archive that can be read ({error})");
    let mut archive = tar::Archive::new(bytes);
    for entry in archive.entries().map_err(wrong)? {
        let mut entry = entry.map_err(wrong)?;
        let name = String::from_utf8(entry.path_bytes().into_owned());
        let name = name.map_err(|_| "has a name that is not UTF-8".to_owned())?;
        let name = name
            .trim_start_matches("./")
            .trim_end_matches('/')
            .to_owned();
        match entry.header().entry_type() {
            tar::EntryType::Regular => {}
            tar::EntryType::Directory | tar::EntryType::XGlobalHeader => continue,
            other => {
                return Err(format!(
                    "has {name:?}, which is not a file or a directory ({other:?})"
                ));
            }
        }
        if entry.size() > limits.bytes {
            return Err(format!(
                "has {name:?} of {} bytes, more than --max-bytes",
                entry.size()
            ));
        }
        let mode = entry.header().mode().map_err(wrong)? & 0o777 | 0o600;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(wrong)?;
        set.add(&name, File { bytes, mode }, limits)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        files: 10,
        bytes: 1000,
    };

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o755);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn bodies_are_read() {
        let names = |body: &[u8], form| {
            let set = read(body, form, "one", LIMITS)?;
            Ok::<Vec<String>, String>(set.files().map(|(name, _)| name.to_owned()).collect())
        };
        let all = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(names(b"x", Form::File), all(&["one"]));
        assert_eq!(
            names(br#"{"a":"1","d/b":"2"}"#, Form::Map),
            all(&["a", "d/b"])
        );
        let tar = archive(&[("a", b"1"), ("d/b", b"2")]);
        assert_eq!(names(&tar, Form::Tar), all(&["a", "d/b"]));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(names(&gzip, Form::Tar), all(&["a", "d/b"]));
        let why = |body: &[u8], form| names(body, form).unwrap_err();
        assert!(why(br#"{"a":1}"#, Form::Map).starts_with("is no JSON object of names and texts"));
        assert!(why(br#"{"../a":""}"#, Form::Map).contains("begins with \"..\""));
        assert!(
            why(&tar[..700], Form::Tar).starts_with("is no archive"),
            "cut"
        );
        assert!(
            why(&gzip[..gzip.len() / 2], Form::Tar).starts_with("is no archive"),
            "cut"
        );
        assert!(why(&archive(&[("a", &[0; 1001])]), Form::Tar).contains("more than --max-bytes"));
    }

    proptest! {
        #[test]
        fn no_bytes_upset_it(body in proptest::collection::vec(any::<u8>(), 0..2000)) {
            for form in [Form::File, Form::Tar, Form::Map] {
                drop(read(&body, form, "one", LIMITS));
            }
        }
    }
}
