//! The caller's terminal, lent to a command in a container: raw while that runs, its size told whenever it changes.

use std::io::{self, IsTerminal};

use podkit_pod::control::Size;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Raw until it is dropped.
#[derive(Debug)]
pub(super) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Makes the terminal of standard input raw; an error when that is none.
    pub(super) fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        // What is written comes from a terminal, which has ended its lines already.
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // It may have hung up.
        let _restored = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Whether standard input is a terminal.
pub(super) fn is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// How large the caller's window is.
pub(super) fn size() -> Option<Size> {
    let size = [tcgetwinsize(io::stdin()), tcgetwinsize(io::stdout())];
    let size = size.into_iter().flatten().find(|size| size.ws_col > 0)?;
    Some(Size {
        rows: size.ws_row,
        columns: size.ws_col,
    })
}

/// Told when the size changes.
pub(super) fn size_changes() -> io::Result<Signal> {
    signal(SignalKind::window_change())
}
