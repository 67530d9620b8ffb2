//! What can be set, and nothing else: these declarations are the flags, the variables and the reference.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use podkit_foundation::error::Failure;
use podkit_foundation::params::{Addr, ParamError, ParamSet as _, Values};

use super::credentials::{App, Credentials};
use super::location::{Location, RefOf, Repo, Revision, Url, check_name};
use super::source::Wish;
use super::ssh::{self, KeyFiles};
use super::submodule::is_same_host;

podkit_foundation::choices! {
    /// `--submodules`.
    pub enum Submodules {
        /// None: their directories are there and empty.
        Off = "off",
        /// Those of the repository itself.
        Shallow = "shallow",
        /// Those of submodules too.
        Recursive = "recursive",
    }
}

podkit_foundation::params! {
    /// The parameters of `git-sync` besides those of publishing.
    pub struct Params {
        /// The repository: https://HOST/PATH, ssh://USER@HOST/PATH, USER@HOST:PATH, /PATH of a repository or a bundle; repeatable as NAME=….
        ///
        /// NAME is that of the link, and of the repository in logs and metrics; without it the last part of the path
        /// without `.git`. A repository on this machine is read where it is, without a copy. Over http servers
        /// must speak version 2 of git's protocol (git 2.18 or newer).
        repo: Vec<Repo> { optional: false, also: &["GITSYNC_REPO"] },
        /// What is wanted: a branch, a tag, HEAD, refs/… or a commit's 40 digits; repeatable as NAME=REF for one repository.
        ///
        /// Of a tag and a branch of one name it is the tag, as with git. A commit never changes: nobody is asked any more
        /// once it is there.
        r#ref: Vec<RefOf> { default: Some("HEAD"), also: &["GITSYNC_REF"] },
        /// The directory for the links, the trees and what was fetched.
        root: PathBuf { also: &["GITSYNC_ROOT"] },
        /// The link's name in --root, for one repository; its name unless given.
        link: Option<String> { also: &["GITSYNC_LINK"] },
        /// The time between two looks at a repository; spread by a tenth up and down, so that many don't ask at once.
        period: Duration { default: Some("10s"), bounds: Some((100, 86_400_000)), also: &["GITSYNC_PERIOD"] },
        /// How long one look, with all that it fetches, may take.
        sync_timeout: Duration { default: Some("2m"), bounds: Some((1_000, 86_400_000)), also: &["GITSYNC_SYNC_TIMEOUT"] },
        /// Commits of history that are fetched; 0 is all of it.
        ///
        /// The files are the same. With history the store grows, and a fetch after a long time can be smaller.
        depth: u32 { default: Some("1"), bounds: Some((0, 1_000_000)), also: &["GITSYNC_DEPTH"] },
        /// A file of patterns as in git's sparse-checkout: only files that match are written. Read each time.
        ///
        /// One pattern a line, the last that matches decides, `!` leaves out, `#` begins a comment; `*`, `?` and `**`.
        sparse: Option<PathBuf> { live: true, also: &["GITSYNC_SPARSE_CHECKOUT_FILE"] },
        /// Submodules: none, those of the repository, or those of submodules too.
        submodules: Submodules { default: Some("off"), also: &["GITSYNC_SUBMODULES"] },
        /// Publish once and exit, for an init container: 0 when it is published, 1 with the reason when it isn't.
        once: bool { default: Some("false"), also: &["GITSYNC_ONE_TIME"] },
        /// The user name for http(s). With a token most servers take any.
        username: String { default: Some("git"), also: &["GITSYNC_USERNAME"] },
        /// A file with the password or token for http(s). Read each time.
        password_file: Option<PathBuf> { live: true, also: &["GITSYNC_PASSWORD_FILE"] },
        /// A GitHub App's id or client id, to ask GitHub for tokens.
        github_app_id: Option<String> { also: &["GITSYNC_GITHUB_APP_APPLICATION_ID", "GITSYNC_GITHUB_APP_CLIENT_ID"] },
        /// The number of the app's installation.
        github_app_installation_id: Option<u64> { also: &["GITSYNC_GITHUB_APP_INSTALLATION_ID"] },
        /// The app's private key, PEM. Read each time.
        github_app_private_key_file: Option<PathBuf> { live: true, also: &["GITSYNC_GITHUB_APP_PRIVATE_KEY_FILE"] },
        /// Where GitHub's API is: https://HOST/api/v3 with GitHub Enterprise Server.
        github_api: String { default: Some("https://api.github.com"), also: &["GITSYNC_GITHUB_BASE_URL"] },
        /// Private keys for ssh, of OpenSSH's form or PEM: ed25519, ecdsa or rsa; the first that the server takes. Read each time.
        ///
        /// Repeatable, or several with `:` between them. Over https none is needed.
        ssh_key_file: Vec<KeyFiles> { default: Some("/etc/git-secret/ssh"), live: true, also: &["GITSYNC_SSH_KEY_FILE"] },
        /// A file with the passphrase of keys that are encrypted, one line. Read each time.
        ssh_key_passphrase_file: Option<PathBuf> { live: true },
        /// Whether the server's key has to be in --ssh-known-hosts-file; without it whoever answers is believed.
        ssh_known_hosts: bool { default: Some("true"), also: &["GITSYNC_SSH_KNOWN_HOSTS"] },
        /// The keys that ssh servers have, in OpenSSH's form. Read each time.
        ///
        /// Hashed names, patterns, `[HOST]:PORT` and @revoked are understood; certificates of hosts (@cert-authority) are not
        /// asked for.
        ssh_known_hosts_file: PathBuf { default: Some("/etc/git-secret/known_hosts"), live: true, also: &["GITSYNC_SSH_KNOWN_HOSTS_FILE"] },
        /// Where pushes are told of: every repository is looked at at once.
        ///
        /// GitHub's, Gitea's and GitLab's webhooks are understood, at any path. The answer is 202 and does not wait.
        webhook: Option<Addr> {},
        /// A file with the webhook's secret (of GitLab: its token). Read each time.
        webhook_secret_file: Option<PathBuf> { live: true },
        /// A file of allowed signers (ssh-keygen): only commits signed with one of these ssh keys are published. Read each time.
        ///
        /// Principals, then optionally namespaces="git", then the key: ssh-ed25519, ssh-rsa, ecdsa-sha2-nistp256 or
        /// ecdsa-sha2-nistp384. A commit that isn't signed, or by a key that isn't there, is refused, and the last good tree stays.
        verify: Option<PathBuf> { live: true },
        /// Not ready when no look has succeeded for so long; 0s: ready for as long as there is a tree.
        stale_after: Duration { default: Some("0s"), bounds: Some((0, 864_000_000)) },
    }
}

impl Params {
    /// The typed parameters, checked against each other.
    pub(super) fn checked(values: &Values) -> Result<Self, Failure> {
        let params = Self::from_values(values)?;
        let wrong = |field: &str, why: String| Err(ParamError::new(field, why).into());
        if params.repo.is_empty() {
            let why = "is required; expected https://HOST/PATH, USER@HOST:PATH, or /PATH of a repository or a bundle";
            return wrong("repo", why.to_owned());
        }
        let mut names = BTreeSet::new();
        if let Some(repo) = params.repo.iter().find(|repo| !names.insert(&repo.name)) {
            let name = &repo.name;
            return wrong(
                "repo",
                format!("two are called {name}; expected NAME=URL with a name of its own for each"),
            );
        }
        if let Some(link) = &params.link {
            if params.repo.len() > 1 {
                return wrong(
                    "link",
                    "is for one repository; of several each has its name as the link".to_owned(),
                );
            }
            if let Err(why) = check_name(link) {
                return wrong("link", why);
            }
        }
        let mut refs = BTreeSet::new();
        for of in &params.r#ref {
            if let Some(name) = &of.repo
                && !names.contains(name)
            {
                return wrong(
                    "ref",
                    format!(
                        "{name} is no repository of --repo; expected {}",
                        join(&names)
                    ),
                );
            }
            if !refs.insert(&of.repo) {
                return wrong(
                    "ref",
                    "is given twice for one repository; expected REF once, and NAME=REF".to_owned(),
                );
            }
        }
        if !params.root.is_absolute() {
            return wrong("root", format!("{} is not absolute", params.root.display()));
        }
        let credentials = params.credentials()?;
        let mut servers = params
            .repo
            .iter()
            .filter(|repo| matches!(repo.location, Location::Http(_)));
        if let (Some(first), true) = (servers.next(), credentials != Credentials::Nobody)
            && let Some(other) = servers.find(|repo| !is_same_host(&repo.location, &first.location))
        {
            return wrong(
                "repo",
                format!(
                    "{} and {} are on different hosts, and one would be shown the other's credentials; expected a git-sync for each",
                    first.location, other.location
                ),
            );
        }
        match (&params.webhook, &params.webhook_secret_file) {
            (Some(_), None) => wrong(
                "webhook",
                "needs --webhook-secret-file: anyone could wake it".to_owned(),
            ),
            (None, Some(_)) => wrong("webhook_secret_file", "needs --webhook".to_owned()),
            (Some(_), _) if params.once => wrong("webhook", "can't go with --once".to_owned()),
            _ => Ok(params),
        }
    }

    fn credentials(&self) -> Result<Credentials, ParamError> {
        let app = (
            &self.github_app_id,
            self.github_app_installation_id,
            &self.github_app_private_key_file,
        );
        match (&self.password_file, app) {
            (None, (None, None, None)) => Ok(Credentials::Nobody),
            (Some(file), (None, None, None)) => Ok(Credentials::Password {
                username: self.username.clone(),
                file: file.clone(),
            }),
            (Some(_), _) => Err(ParamError::new(
                "password_file",
                "can't go with a GitHub App's credentials",
            )),
            (None, (Some(id), Some(installation), Some(key))) => {
                let api = Url::parse(&self.github_api)
                    .map_err(|why| ParamError::new("github_api", why))?;
                Ok(Credentials::App(App {
                    id: id.clone(),
                    installation,
                    key: key.clone(),
                    api,
                }))
            }
            _ => Err(ParamError::new(
                "github_app_id",
                "needs all of --github-app-id, --github-app-installation-id and --github-app-private-key-file",
            )),
        }
    }

    fn ssh(&self) -> ssh::Settings {
        let keys = self.ssh_key_file.iter();
        ssh::Settings {
            keys: keys.flat_map(|files| files.0.iter().cloned()).collect(),
            passphrase: self.ssh_key_passphrase_file.clone(),
            known_hosts: self
                .ssh_known_hosts
                .then(|| self.ssh_known_hosts_file.clone()),
        }
    }

    /// The link of a repository.
    pub(super) fn link_of(&self, repo: &Repo) -> PathBuf {
        self.root.join(self.link.as_ref().unwrap_or(&repo.name))
    }

    /// What is wanted of a repository.
    pub(super) fn wish(&self, repo: &Repo) -> Result<Wish, ParamError> {
        let own = self
            .r#ref
            .iter()
            .find(|of| of.repo.as_ref() == Some(&repo.name));
        let any = self.r#ref.iter().find(|of| of.repo.is_none());
        let revision = own.or(any).map(|of| of.wanted.clone());
        Ok(Wish {
            location: repo.location.clone(),
            revision: revision.unwrap_or_else(|| Revision::Name("HEAD".to_owned())),
            depth: self.depth,
            sparse: self.sparse.clone(),
            submodules: self.submodules,
            signers: self.verify.clone(),
            credentials: self.credentials()?,
            ssh: self.ssh(),
            store: self.root.join(".podkit-git").join(&repo.name).join("store"),
        })
    }

    /// Reads the files that are read each time, to hear what is wrong with them.
    pub(super) fn read_files(&self) -> Result<(), ParamError> {
        use super::{credentials, signers, sparse};
        let wrong = |field: &'static str| move |why: String| ParamError::new(field, why);
        let mut locations = self.repo.iter().map(|repo| &repo.location);
        if locations.any(|location| matches!(location, Location::Ssh(_))) {
            let settings = self.ssh();
            let file = settings.passphrase.as_ref();
            let passphrase = file.map(|file| credentials::read("file", file)).transpose();
            let passphrase = passphrase.map_err(wrong("ssh_key_passphrase_file"))?;
            for path in &settings.keys {
                ssh::read_key(path, passphrase.as_deref()).map_err(wrong("ssh_key_file"))?;
            }
            if let Some(path) = &settings.known_hosts {
                ssh::KnownHosts::read(path).map_err(wrong("ssh_known_hosts_file"))?;
            }
        }
        if let Some(path) = &self.sparse {
            sparse::Sparse::read(path).map_err(wrong("sparse"))?;
        }
        if let Some(path) = &self.verify {
            signers::Signers::read(path).map_err(wrong("verify"))?;
        }
        if let Some(path) = &self.password_file {
            credentials::read("file", path).map_err(wrong("password_file"))?;
        }
        if let Some(path) = &self.webhook_secret_file {
            credentials::read("file", path).map_err(wrong("webhook_secret_file"))?;
        }
        Ok(())
    }
}

fn join(names: &BTreeSet<&String>) -> String {
    let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    names.join(", ")
}
