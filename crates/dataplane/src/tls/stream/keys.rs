//! What rustls keeps of a connection whose records we protect: the secrets of later keys, and of later sessions.

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionTrafficSecrets, Error};

/// Of either side.
pub enum Keys {
    /// We serve.
    Server(KernelConnection<ServerConnectionData>),
    /// We ask.
    Client(KernelConnection<ClientConnectionData>),
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// The next secret to receive by.
    pub(super) fn update_receive(&mut self) -> Result<ConnectionTrafficSecrets, Error> {
        let updated = match self {
            Self::Server(keys) => keys.update_rx_secret(),
            Self::Client(keys) => keys.update_rx_secret(),
        };
        updated.map(|(_, secrets)| secrets)
    }

    /// The next secret to send by.
    pub(super) fn update_send(&mut self) -> Result<ConnectionTrafficSecrets, Error> {
        let updated = match self {
            Self::Server(keys) => keys.update_tx_secret(),
            Self::Client(keys) => keys.update_tx_secret(),
        };
        updated.map(|(_, secrets)| secrets)
    }

    /// A server's ticket for a later session; false from a client, which gives none.
    pub(super) fn take_ticket(&mut self, ticket: &[u8]) -> Result<bool, Error> {
        match self {
            Self::Server(_) => Ok(false),
            Self::Client(keys) => keys.handle_new_session_ticket(ticket).map(|()| true),
        }
    }
}
