//! What can be set, and nothing else: these declarations are the flags, the variables and the reference.

use std::path::PathBuf;
use std::time::Duration;

use podkit_dataplane::tls::OriginFiles;
use podkit_foundation::params::{ParamError, Size};

use super::source::SourceSpec;
use super::template::TemplateSpec;
use crate::proxy::Proxies;
use crate::publish::Client;

podkit_foundation::choices! {
    /// `--publish`.
    pub enum Publish {
        /// The sources' files and what templates make.
        All = "all",
        /// What templates make.
        Templates = "templates",
    }
}

podkit_foundation::params! {
    /// The parameters of `config` besides those of publishing.
    pub struct Params {
        /// Where files come from: `file:PATH`, `http(s)://HOST/PATH`, `etcd://HOST:PORT/PREFIX`; of several the later wins.
        ///
        /// `file:` is a directory or a file, watched; links are followed, names that begin with `..` are left out.
        ///
        /// `http(s)://` is asked with its ETag: the server may hold the request until there is news (`Prefer: wait=50`; best it
        /// says that it does, by `Preference-Applied: wait`), else it is asked once a `--period`. The answer is one file, named
        /// by the last part of the path or `;name=FILE`; a tar archive
        /// (plain or gzip) when the path ends so, the type says so or with `;as=tar`; a JSON object of names and texts with
        /// `;as=map`.
        ///
        /// `etcd://` (`etcds://` by TLS) is every key that begins with PREFIX, which is all behind the first `/`, watched by etcd's
        /// JSON gateway; the rest of a key is the file's name. `;also=HOST:PORT` behind it, once or more, names other members of
        /// the cluster, which are asked when one is away.
        source: Vec<SourceSpec> {},
        /// Where they are published. Made when it is not there; it may be the root of a volume.
        ///
        /// As the kubelet does: `OUT/..data` is a link to the present version, `OUT/NAME` one to `..data/NAME`. Or see
        /// `--in-place`.
        out: PathBuf {},
        /// A template and the file that is made of it: `SRC=DST`.
        ///
        /// SRC is `/a/file` of this container, or a file of the sources. The language is Jinja's (minijinja). Variables are the
        /// sources' files by the parts of their names (`{{ db.host }}` is the file db/host), the values in JSON files
        /// (`{{ db.port }}` of db.json), `files["any/name"]`, and `env.NAME`. A variable that is not there is an error.
        template: Vec<TemplateSpec> {},
        /// Variables of the environment that templates may use, as `env.NAME`.
        template_env: Vec<String> {},
        /// What is published: the sources' files and what templates make, or the latter only.
        publish: Publish { default: Some("all") },
        /// Publish once and exit, for an init container: 0 when it is published, 1 with the reason when it isn't.
        ///
        /// When a source stays away and a version was published before, that one stays, and the exit code is 0.
        once: bool { default: Some("false") },
        /// How long `--once` waits for the sources.
        once_timeout: Duration { default: Some("1m"), bounds: Some((100, 86_400_000)) },
        /// The time between two looks at a source that tells nothing by itself; spread by a tenth up and down.
        period: Duration { default: Some("10s"), bounds: Some((100, 86_400_000)) },
        /// The time after which every source is read in whole although it told nothing.
        resync: Duration { default: Some("5m"), bounds: Some((1_000, 86_400_000)) },
        /// A file with the bearer token that http(s) sources want. Read each time.
        token_file: Option<PathBuf> { live: true },
        /// Authorities that the certificates of https and etcds sources must come from, PEM; those of the system unless given.
        ca: Option<PathBuf> { live: true },
        /// Certificate chain that is shown to https and etcds sources that ask for one, PEM.
        ///
        /// Authorities, certificate and key are read again with every connection: what is no good is refused, and what was in force
        /// stays.
        cert: Option<PathBuf> { live: true },
        /// Its private key, PEM, not encrypted; without it --cert holds the key too.
        key: Option<PathBuf> { live: true },
        /// The user that etcd sources are read as; it needs a role that may read PREFIX.
        ///
        /// etcd's gateway knows nobody by a client certificate: where etcd has authentication enabled, this is needed beside `--cert`.
        etcd_user: Option<String> {},
        /// A file with that user's password. Read at each login, and one that has run out is renewed.
        etcd_password_file: Option<PathBuf> { live: true },
        /// Files that one source may have.
        max_files: u32 { default: Some("10000"), bounds: Some((1, 1_000_000)) },
        /// Bytes that one source may have.
        max_bytes: Size { default: Some("16Mi"), bounds: Some((1, 1_073_741_824)) },
    }
}

impl Params {
    /// What is wrong although each is right.
    pub(super) fn check(&self) -> Result<(), ParamError> {
        let wrong = |field, why: String| Err(ParamError::new(field, why));
        if self.source.is_empty() {
            return wrong(
                "source",
                "is required; expected file:PATH, http(s)://… or etcd://…".to_owned(),
            );
        }
        if self.publish == Publish::Templates && self.template.is_empty() {
            return wrong("publish", "templates needs a --template".to_owned());
        }
        if !self.template_env.is_empty() && self.template.is_empty() {
            return wrong("template_env", "needs a --template that uses it".to_owned());
        }
        for name in &self.template_env {
            if std::env::var(name).is_err() {
                return wrong(
                    "template_env",
                    format!("there is no variable {name} in the environment"),
                );
            }
        }
        let any = |wanted: fn(&SourceSpec) -> bool| self.source.iter().any(wanted);
        let needs = [
            (
                "token_file",
                self.token_file.is_some(),
                any(|spec| matches!(spec, SourceSpec::Http(..))),
                "an http(s):// source",
            ),
            (
                "etcd_user",
                self.etcd_user.is_some(),
                any(|spec| matches!(spec, SourceSpec::Etcd(..))),
                "an etcd(s):// source",
            ),
            (
                "etcd_user",
                self.etcd_user.is_some(),
                self.etcd_password_file.is_some(),
                "--etcd-password-file",
            ),
            (
                "etcd_password_file",
                self.etcd_password_file.is_some(),
                self.etcd_user.is_some(),
                "--etcd-user",
            ),
            (
                "cert",
                self.cert.is_some(),
                any(SourceSpec::tls),
                "an https:// or etcds:// source",
            ),
            (
                "key",
                self.key.is_some(),
                self.cert.is_some(),
                "--cert, the certificate that it is the key of",
            ),
        ];
        for (field, given, there, what) in needs {
            if given && !there {
                return wrong(field, format!("needs {what}"));
            }
        }
        if self.ca.is_some() || self.cert.is_some() {
            Client::new(self.origin_files(), Proxies::default()).check()?;
        }
        let files = [
            ("token_file", &self.token_file),
            ("etcd_password_file", &self.etcd_password_file),
        ];
        let files = files
            .iter()
            .filter_map(|(field, path)| Some((*field, path.as_deref()?)));
        let templates = self
            .template
            .iter()
            .filter_map(|template| Some(("template", template.path()?)));
        for (field, path) in files.chain(templates) {
            if let Err(error) = std::fs::File::open(path) {
                return wrong(field, format!("{} can't be read ({error})", path.display()));
            }
        }
        Ok(())
    }

    /// What TLS towards sources is made of.
    pub(super) fn origin_files(&self) -> OriginFiles {
        OriginFiles {
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
        }
    }
}
