//! A page behind HTTP, for the sources that read one.

use std::path::PathBuf;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use podkit_dataplane::http::{Ask, Fetched, fetch};
use podkit_dataplane::upstream::Pool;

use super::{Ground, Spec};
use crate::client::redis::password;

/// Who asks.
#[derive(Debug)]
enum Login {
    Nobody,
    /// A user, and the file of the password.
    Basic(String, PathBuf),
    /// The file of a token.
    Bearer(PathBuf),
}

/// A page.
pub(super) struct Web {
    pool: Rc<Pool>,
    target: String,
    login: Login,
}

impl Web {
    /// Of a source, with its keys `user`, `password-file` and `token-file`. `usual`: its path where none is given.
    pub(super) fn new(spec: &Spec, ground: &Ground, usual: &str) -> Result<Self, String> {
        let files = (spec.file("password-file"), spec.file("token-file"));
        let login = match (spec.option("user"), files) {
            (None, (None, None)) => Login::Nobody,
            (Some(""), _) => return Err("user is empty".to_owned()),
            (Some(user), _) if user.contains(':') => return Err("user has a colon".to_owned()),
            (Some(user), (Some(file), None)) => Login::Basic(user.to_owned(), file),
            (None, (None, Some(file))) => Login::Bearer(file),
            _ => {
                return Err("user goes with password-file; token-file stands alone".to_owned());
            }
        };
        let target = match spec.path.as_str() {
            "" | "/" => usual.to_owned(),
            path => path.to_owned(),
        };
        if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "\"{target}\" is no path of a URL: it begins with /, and what is not ASCII is %-encoded"
            ));
        }
        Ok(Self {
            pool: ground.pool(spec)?,
            target,
            login,
        })
    }

    /// Its answer, of `most` bytes; asked by POST when there is a body.
    pub(super) async fn ask(
        &self,
        fields: &[(&str, &str)],
        body: &[u8],
        most: usize,
    ) -> Result<Fetched, String> {
        let login = self.authorization()?;
        let mut fields = fields.to_vec();
        fields.extend(login.as_deref().map(|login| ("Authorization", login)));
        let ask = Ask {
            method: if body.is_empty() { "GET" } else { "POST" },
            target: &self.target,
            fields: &fields,
            body,
            most,
        };
        fetch(&self.pool, ask).await
    }

    /// The body of its answer, which has status 200.
    pub(super) async fn page(
        &self,
        fields: &[(&str, &str)],
        body: &[u8],
        most: usize,
    ) -> Result<Fetched, String> {
        let got = self.ask(fields, body, most).await?;
        match got.status {
            200 => Ok(got),
            status => Err(self.refused(status)),
        }
    }

    /// What is said of an answer with another status.
    pub(super) fn refused(&self, status: u16) -> String {
        format!("answered {status} to {}", self.target)
    }

    /// The files are read for each request, so that what is changed there is what is said.
    fn authorization(&self) -> Result<Option<String>, String> {
        let said = match &self.login {
            Login::Nobody => return Ok(None),
            Login::Basic(user, file) => {
                let mut pair = format!("{user}:").into_bytes();
                pair.extend(password(file)?);
                format!("Basic {}", STANDARD.encode(pair))
            }
            Login::Bearer(file) => {
                let token = String::from_utf8(password(file)?).ok();
                let token = token.filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()));
                let shown = file.display();
                let token = token.ok_or_else(|| {
                    format!("can't be asked: {shown} has no token in its first line")
                })?;
                format!("Bearer {token}")
            }
        };
        Ok(Some(said))
    }
}
