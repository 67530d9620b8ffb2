//! Who servers are told that podkit is: a client's user, or podkit's own, whose password may change.
//!
//! A new password is had from where the first came from, on a reload and when a server does not take the former one any more: so it can be changed
//! at the servers and in the file in either order, and connections that are open go on.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use podkit_foundation::surface::common::generation;
use podkit_foundation::telemetry::metrics::{Gauge, Registry};

/// A user's name (empty: the default one) and password.
pub type Credentials = (Vec<u8>, Vec<u8>);

/// Who a server is told.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Whom a client says that it is.
    Client(Credentials),
    /// Podkit's own user.
    Own(Arc<Secret>),
}

impl Auth {
    /// The user; empty: the default one.
    pub fn user(&self) -> &[u8] {
        match self {
            Self::Client((user, _)) => user,
            Self::Own(secret) => &secret.user,
        }
    }

    /// As of now.
    pub(super) fn password(&self) -> Vec<u8> {
        match self {
            Self::Client((_, password)) => password.clone(),
            Self::Own(secret) => secret.lock().password.clone(),
        }
    }

    /// A server does not take this password. True when there is another one now.
    pub(super) fn renew(&self, refused: &[u8]) -> bool {
        match self {
            Self::Client(_) => false,
            Self::Own(secret) => {
                // What is wrong with it is said by reload itself.
                drop(secret.reload());
                secret.lock().password != refused
            }
        }
    }
}

/// There is one of each secret.
impl PartialEq for Auth {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Client(one), Self::Client(other)) => one == other,
            (Self::Own(one), Self::Own(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl Eq for Auth {}

impl Hash for Auth {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Client(credentials) => credentials.hash(state),
            Self::Own(secret) => Arc::as_ptr(secret).hash(state),
        }
    }
}

type Read = Box<dyn Fn() -> Result<Vec<u8>, String> + Send + Sync>;

/// A user and a password that is read again.
pub struct Secret {
    user: Vec<u8>,
    read: Read,
    state: Mutex<State>,
    generation: Gauge,
}

struct State {
    password: Vec<u8>,
    /// Why the former password is still in force.
    refusal: Option<String>,
}

/// Without the password.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = String::from_utf8_lossy(&self.user);
        f.debug_struct("Secret")
            .field("user", &user)
            .finish_non_exhaustive()
    }
}

impl Secret {
    /// `read` says what the password is by then, or in a line why it can't.
    pub fn new(
        user: &[u8],
        password: Vec<u8>,
        registry: &Registry,
        read: impl Fn() -> Result<Vec<u8>, String> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let state = State {
            password,
            refusal: None,
        };
        Arc::new(Self {
            user: user.to_vec(),
            read: Box::new(read),
            state: Mutex::new(state),
            generation: generation(registry),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads it again; the former one stays when it can't be.
    pub fn reload(&self) -> Result<(), String> {
        let fresh = (self.read)();
        let mut state = self.lock();
        match fresh {
            Ok(password) => {
                state.refusal = None;
                if state.password != password {
                    state.password = password;
                    self.generation.add(1);
                    let user = String::from_utf8_lossy(&self.user).into_owned();
                    tracing::info!(
                        user,
                        "the password for servers changed: in force for new connections"
                    );
                }
                Ok(())
            }
            Err(line) => {
                if state.refusal.as_ref() != Some(&line) {
                    tracing::warn!("refused, the former password stays in force: {line}");
                    state.refusal = Some(line.clone());
                }
                Err(line)
            }
        }
    }

    /// Why the former password is still in force.
    pub fn refusal(&self) -> Option<String> {
        self.lock().refusal.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_read_again_when_it_is_refused_and_the_former_stays_otherwise() {
        let said = Arc::new(Mutex::new(Ok("old")));
        let reads = Arc::clone(&said);
        let read = move || {
            let said = reads.lock().unwrap().clone();
            said.map(|word| word.as_bytes().to_vec())
        };
        let secret = Secret::new(b"shop", b"old".to_vec(), &Registry::default(), read);
        let auth = Auth::Own(Arc::clone(&secret));
        assert_eq!(
            (auth.user(), auth.password()),
            (&b"shop"[..], b"old".to_vec())
        );
        assert!(!auth.renew(b"old"));
        *said.lock().unwrap() = Err("it is empty".to_owned());
        assert!(!auth.renew(b"old"));
        assert_eq!(secret.refusal().as_deref(), Some("it is empty"));
        assert_eq!(auth.password(), b"old");
        *said.lock().unwrap() = Ok("new");
        assert!(auth.renew(b"old"));
        assert_eq!((auth.password(), secret.refusal()), (b"new".to_vec(), None));
        // Another connection was refused with the former one.
        assert!(auth.renew(b"old") && !auth.renew(b"new"));
        assert!(!format!("{auth:?}").contains("new"));
        let client = Auth::Client((b"shop".to_vec(), b"new".to_vec()));
        assert!(auth != client && !client.renew(b"new") && auth == auth.clone());
    }
}
