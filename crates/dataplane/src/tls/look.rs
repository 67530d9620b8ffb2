//! One look at everything on disk: each pair and the clients' authorities are read and judged, and what is no good is
//! replaced by what is in force. Nothing is put in force here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;

use super::certificate::{date, sha256};
use super::client::{ClientRules, ClientState};
use super::pair::{Cause, Pair, Part, Problem};
use super::selfsigned;
use super::set::Named;
use super::source::{Found, Source};

/// Something on disk that was refused; what it would replace stays in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The pair's name, or `client-ca`, or the directory.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// The kind of the problem.
    pub cause: Cause,
    /// What is wrong and what would be right.
    pub text: String,
    /// Since when.
    pub since: SystemTime,
    /// The parameter that names the file.
    pub(crate) field: &'static str,
}

impl Refusal {
    /// File and reason in one line.
    pub fn line(&self) -> String {
        format!("{} {}", self.file.display(), self.text)
    }
}

/// What one look at the files came to.
#[derive(Debug, Default)]
pub(crate) struct Look {
    pub(crate) pairs: Vec<Named>,
    pub(crate) client: Option<ClientState>,
    pub(crate) refused: BTreeMap<String, Refusal>,
    /// The files and directories that decided it, for the watch.
    pub(crate) depends: Vec<PathBuf>,
}

/// What is in force: unchanged files keep it, refused ones fall back to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Former<'a> {
    pub(crate) pairs: &'a [Named],
    pub(crate) client: Option<&'a ClientState>,
    pub(crate) depends: &'a [PathBuf],
}

impl Source {
    /// The parameter that names it.
    pub(crate) fn field(&self) -> &'static str {
        match self {
            Self::Files(_) => "cert",
            Self::Directory { .. } => "cert_dir",
            Self::SelfSigned(_) => "self_signed",
        }
    }
}

/// Reads and judges everything. What is no good is taken from `former`, as is what did not change.
pub(crate) fn look(
    source: &Source,
    rules: Option<&ClientRules>,
    provider: &Arc<CryptoProvider>,
    former: Option<Former<'_>>,
    now: SystemTime,
) -> Look {
    let mut look = Look::default();
    let made = match source {
        Source::SelfSigned(names) => Some(names),
        Source::Directory { until, .. } => until.as_ref(),
        Source::Files(_) => None,
    };
    look.read(source, former, now, provider);
    if let Some(names) = made
        && look.pairs.is_empty()
    {
        look.self_sign(names, former, now, provider);
    }
    if let Some(rules) = rules {
        look.depends.push(rules.ca.clone());
        look.depends.extend(rules.crl.clone());
        look.client = match rules.load(now, provider) {
            Ok(client) => Some(client),
            Err((file, problem)) => {
                let field = match rules.crl.as_ref() == Some(&file) {
                    true => "client_crl",
                    false => "client_ca",
                };
                look.refuse(field.replace('_', "-"), field, file, problem, now);
                former.and_then(|former| former.client.cloned())
            }
        };
    }
    look.depends.sort();
    look.depends.dedup();
    look
}

impl Look {
    fn self_sign(
        &mut self,
        names: &[String],
        former: Option<Former<'_>>,
        now: SystemTime,
        provider: &CryptoProvider,
    ) {
        let old = former.and_then(|former| former.pairs.iter().find(|named| named.made));
        if let Some(old) = old
            && !old.pair.leaf.expires_soon(now)
        {
            return self.pairs.push(old.clone());
        }
        match selfsigned::make(names, now, provider) {
            Ok(pair) => self.pairs.push(Named {
                name: "self-signed".to_owned(),
                digest: pair.leaf.sha256,
                made: true,
                pair: Arc::new(pair),
            }),
            Err(why) => {
                self.pairs.extend(old.cloned());
                let problem = Problem::new(Cause::Malformed, Part::Certificate, why);
                let name = "self-signed".to_owned();
                self.refuse(
                    name,
                    "self_signed",
                    PathBuf::from("the self-signed certificate:"),
                    problem,
                    now,
                );
            }
        }
    }

    fn read(
        &mut self,
        source: &Source,
        former: Option<Former<'_>>,
        now: SystemTime,
        provider: &CryptoProvider,
    ) {
        let former_pairs = former.map(|former| former.pairs).unwrap_or_default();
        let all: Vec<&Named> = former_pairs.iter().filter(|named| !named.made).collect();
        let kept = || all.iter().copied().cloned().collect();
        let reading = match source.read() {
            Ok(reading) => reading,
            Err(why) => {
                let Source::Directory {
                    path: directory, ..
                } = source
                else {
                    unreachable!("only a directory is refused as a whole");
                };
                let problem = Problem::new(Cause::Unreadable, Part::Certificate, why);
                self.pairs = kept();
                self.depends = former
                    .map(|former| former.depends.to_vec())
                    .unwrap_or_default();
                let name = directory.display().to_string();
                return self.refuse(name, "cert_dir", directory.clone(), problem, now);
            }
        };
        self.depends = reading.depends;
        for found in reading.found {
            let old = all.iter().copied().find(|named| named.name == found.name);
            match judge(&found, old, now, provider) {
                Ok(named) => self.pairs.push(named),
                Err(problem) => {
                    self.pairs.extend(old.cloned());
                    let (file, field) = match (problem.part, source) {
                        (Part::Certificate, Source::Files(_)) => (found.certificate, "cert"),
                        (Part::Certificate, _) => (found.certificate, "cert_dir"),
                        (Part::Key, Source::Files(pairs)) => {
                            let apart = pairs.iter().any(|(_, key)| key.is_some());
                            (found.key, if apart { "key" } else { "cert" })
                        }
                        (Part::Key, _) => (found.key, "cert_dir"),
                    };
                    self.refuse(found.name, field, file, problem, now);
                }
            }
        }
        if self.pairs.is_empty() && !all.is_empty() {
            // Emptied, perhaps only for a moment: serving the last ones beats serving nobody.
            self.pairs = kept();
            let Source::Directory {
                path: directory, ..
            } = source
            else {
                return;
            };
            let problem = Problem::new(
                Cause::Unreadable,
                Part::Certificate,
                "holds no usable pair any more",
            );
            let name = directory.display().to_string();
            self.refuse(name, "cert_dir", directory.clone(), problem, now);
        }
    }

    fn refuse(
        &mut self,
        name: String,
        field: &'static str,
        file: PathBuf,
        problem: Problem,
        now: SystemTime,
    ) {
        let refusal = Refusal {
            name: name.clone(),
            file,
            cause: problem.cause,
            text: problem.text,
            since: now,
            field,
        };
        self.refused.insert(name, refusal);
    }
}

/// One pair: the old one when its bytes are the same, even if it has expired meanwhile.
fn judge(
    found: &Found,
    old: Option<&Named>,
    now: SystemTime,
    provider: &CryptoProvider,
) -> Result<Named, Problem> {
    let (chain, key) = found.bytes.as_ref().map_err(Clone::clone)?;
    let digest = sha256(&[sha256(chain), sha256(key)].concat());
    if let Some(old) = old
        && old.digest == digest
    {
        return Ok(old.clone());
    }
    Ok(Named {
        name: found.name.clone(),
        pair: Arc::new(Pair::check(chain, key, now, provider)?),
        digest,
        made: false,
    })
}

/// Takes the refusals of a look over; gives back those that are new, and keeps the time of those that are not.
pub(crate) fn refusals(
    known: &mut BTreeMap<String, Refusal>,
    mut fresh: BTreeMap<String, Refusal>,
) -> Vec<Refusal> {
    let mut news = Vec::new();
    for (name, refusal) in &mut fresh {
        match known.get(name) {
            Some(old) if old.line() == refusal.line() => refusal.since = old.since,
            _ => news.push(refusal.clone()),
        }
    }
    *known = fresh;
    news
}

/// One line for each pair that came, changed or went.
pub(crate) fn changes(old: &[Named], new: &[Named]) -> Vec<String> {
    let mut lines = Vec::new();
    for named in new {
        let leaf = &named.pair.leaf;
        let former = old.iter().find(|former| former.name == named.name);
        let verb = match former {
            Some(former) if former.digest == named.digest => continue,
            Some(_) => "renewed",
            None => "added",
        };
        lines.push(format!(
            "{verb} the certificate {} ({}): in force, expires {}, SHA-256 {}",
            named.name,
            leaf.shown_names(),
            date(leaf.not_after),
            leaf.fingerprint()
        ));
        let warnings = named.pair.warnings.iter();
        lines.extend(warnings.map(|warning| format!("odd certificate {}: {warning}", named.name)));
    }
    for former in old {
        if !new.iter().any(|named| named.name == former.name) {
            let why = match former.made {
                true => "there are others now",
                false => "its files are gone",
            };
            lines.push(format!("removed the certificate {}: {why}", former.name));
        }
    }
    // The first is the default.
    let order = |pairs: &[Named]| pairs.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
    if lines.is_empty() && order(old) != order(new) {
        lines.push("the order of the certificates changed".to_owned());
    }
    lines
}
