//! The user's terminal, lent to a program of the guest.

use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use vmoon_core::vm::TerminalSize;
use vmoon_core::{Code, Error};

/// How much is read of what was typed.
const TYPED: usize = 4096;

/// Standard input in raw mode: every key is the guest's. Dropping it restores what was, whatever
/// ended the program.
#[derive(Debug)]
pub(crate) struct Terminal {
    input: AsyncFd<OwnedFd>,
    before: Termios,
}

impl Terminal {
    /// Takes the terminal.
    ///
    /// # Errors
    /// `vm.spec` when standard input is none, `file.io`.
    pub(crate) fn take() -> Result<Self, Error> {
        if !io::stdin().is_terminal() {
            return Err(Error::new(Code::VmSpec, "standard input is not a terminal").with_hint(
                "vm:spawn(cmd, { pty = true }) runs a command on a terminal of its own",
            ));
        }
        Self::raw().map_err(|error| {
            Error::new(Code::FileIo, "the terminal cannot be taken").with_source(error)
        })
    }

    fn raw() -> io::Result<Self> {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` always gives the same descriptor, and keeps it open until it is
        // dropped; the registration drops it after itself.
        let input = unsafe { AsyncFd::register(input) }?;
        let before = tcgetattr(&input)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&input, OptionalActions::Now, &raw)?;
        Ok(Self { input, before })
    }

    /// What is typed next; nothing at the end, when the terminal is gone.
    pub(crate) async fn typed(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; TYPED];
        loop {
            let mut ready = self.input.readable().await?;
            if !is_readable(self.input.get_ref())? {
                // Somebody else took it: the terminal is shared, and reading would wait.
                ready.clear_ready();
                continue;
            }
            let count = rustix::io::read(self.input.get_ref(), &mut buffer)?;
            buffer.truncate(count);
            return Ok(buffer);
        }
    }

    /// Its size now.
    pub(crate) fn size(&self) -> TerminalSize {
        size_of(self.input.get_ref())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // If the terminal is gone, nothing is left to restore.
        let _ = tcsetattr(&self.input, OptionalActions::Now, &self.before);
    }
}

/// Shows what a program printed.
pub(crate) fn show(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// Tells when the terminal has another size.
pub(crate) fn resizes() -> Result<Signal, Error> {
    signal(SignalKind::window_change()).map_err(|error| {
        Error::new(Code::FileIo, "the terminal's size cannot be followed").with_source(error)
    })
}

/// The size of a terminal, or the usual one where it has none.
fn size_of(terminal: impl AsFd) -> TerminalSize {
    match tcgetwinsize(terminal) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
            TerminalSize { rows: size.ws_row, columns: size.ws_col }
        }
        _ => USUAL_SIZE,
    }
}

/// The size of a terminal that nobody sees.
pub(crate) const USUAL_SIZE: TerminalSize = TerminalSize { rows: 24, columns: 80 };

fn is_readable(fd: &OwnedFd) -> io::Result<bool> {
    let mut entries = [PollFd::new(fd, PollFlags::IN)];
    Ok(poll(&mut entries, Some(&Timespec::default()))? > 0)
}
