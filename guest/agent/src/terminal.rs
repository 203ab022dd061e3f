//! Terminals for programs that want one (pty(7)).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use vmoon_protocol::message::TerminalSize;

use crate::sys;

/// What people type for the end of input: VEOF of a terminal as Linux sets it up.
pub(crate) const END_OF_FILE: u8 = 4;

/// The host's end of a terminal. Closing all copies of it hangs up.
#[derive(Debug)]
pub(crate) struct Terminal(OwnedFd);

impl Terminal {
    /// A new terminal, on which `command` will run, as the leader of a session of its own.
    pub(crate) fn open(size: TerminalSize, command: &mut Command) -> io::Result<Self> {
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        // SAFETY: takes integers and returns a new descriptor.
        let terminal = Self(sys::owned(unsafe { libc::posix_openpt(flags) })?);
        let unlocked: libc::c_int = 0;
        // SAFETY: TIOCSPTLCK reads one integer, which outlives the call.
        sys::check(unsafe {
            libc::ioctl(terminal.0.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked)
        })?;
        // SAFETY: TIOCGPTPEER takes flags and returns a new descriptor: the program's end.
        let program =
            sys::owned(unsafe { libc::ioctl(terminal.0.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
        terminal.resize(size);
        command
            .stdin(Stdio::from(program.try_clone()?))
            .stdout(Stdio::from(program.try_clone()?))
            .stderr(Stdio::from(program));
        // SAFETY: between fork and exec the closure makes system calls only.
        unsafe { command.pre_exec(take_control) };
        Ok(terminal)
    }

    /// Another descriptor of it, to read and write.
    pub(crate) fn file(&self) -> io::Result<File> {
        self.0.as_fd().try_clone_to_owned().map(File::from)
    }

    /// Sets its size; the programs on it get SIGWINCH.
    pub(crate) fn resize(&self, size: TerminalSize) {
        let size =
            libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: TIOCSWINSZ reads one `winsize`, which outlives the call. It cannot fail on a
        // terminal that is open.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    }
}

/// Makes standard input the controlling terminal of a new session.
fn take_control() -> io::Result<()> {
    // SAFETY: takes nothing.
    sys::check(unsafe { libc::setsid() })?;
    // SAFETY: TIOCSCTTY takes an integer; standard input is a terminal here.
    sys::check(unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) }).map(drop)
}
