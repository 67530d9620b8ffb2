//! The supervisor's end of a container's terminal.

use std::io;
use std::os::fd::AsFd;

use rustix::termios::{Winsize, tcsetwinsize};

use super::spec::WindowSize;

/// Tells a terminal, by either of its ends, how large its window is; the processes in its foreground get SIGWINCH when that
/// is news. (tty_ioctl(4), TIOCSWINSZ)
pub fn resize(terminal: impl AsFd, size: WindowSize) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(terminal, size)?)
}
