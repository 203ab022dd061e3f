//! Waiting for a program, with a limit and with Ctrl-C.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::process::exit_status;

/// How the program ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It exited with this status.
    Exited(i32),
    /// The limit came first.
    TimedOut,
    /// This signal came first.
    Interrupted(i32),
    /// Its machine ended before it did; what that had to say.
    Died(String),
}

/// How long an interrupted program may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// The signals that end a wait, blocked in this process from now on: for a program that does
/// nothing else.
#[allow(missing_debug_implementations, reason = "a signal set has nothing to show")]
pub struct Signals(libc::sigset_t);

impl Signals {
    /// Blocks `SIGINT`, `SIGTERM`, `SIGHUP` and `SIGCHLD`.
    pub fn block() -> Self {
        // SAFETY: an all-zero set is a valid value; the calls write to it or read from it only.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGCHLD] {
                libc::sigaddset(&raw mut set, signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            Self(set)
        }
    }

    /// Runs a command to its end, at most for `limit`; hands a signal that comes on to it.
    pub fn supervise(&self, command: &mut Command, limit: Duration) -> io::Result<Outcome> {
        // SAFETY: between fork and exec `submit` calls only async-signal-safe functions.
        unsafe { command.pre_exec(submit) };
        let mut child = command.spawn()?;
        let early = self.wait_for(&mut child, limit)?;
        if let Some(Outcome::Interrupted(signal)) = early {
            let id = i32::try_from(child.id()).expect("a process id is an i32");
            // SAFETY: `kill` touches no memory; the child has not been waited for.
            unsafe { libc::kill(id, signal) };
            self.wait_for(&mut child, GRACE)?;
        }
        child.kill()?;
        let status = child.wait()?;
        Ok(early.unwrap_or_else(|| Outcome::Exited(exit_status(status))))
    }

    /// Waits until the child has ended (`None`), the limit is reached or a signal comes.
    pub fn wait_for(&self, child: &mut Child, limit: Duration) -> io::Result<Option<Outcome>> {
        let start = Instant::now();
        loop {
            if child.try_wait()?.is_some() {
                return Ok(None);
            }
            let Some(left) = limit.checked_sub(start.elapsed()) else {
                return Ok(Some(Outcome::TimedOut));
            };
            let timeout = libc::timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(libc::time_t::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            // SAFETY: both pointers are to live values of the right types; no information about
            // the signal is asked for.
            let signal = unsafe {
                libc::sigtimedwait(&raw const self.0, std::ptr::null_mut(), &raw const timeout)
            };
            if signal > 0 && signal != libc::SIGCHLD {
                return Ok(Some(Outcome::Interrupted(signal)));
            }
        }
    }
}

/// In the child, before it becomes the program: no signal is blocked, and it does not outlive
/// this program.
pub fn submit() -> io::Result<()> {
    // SAFETY: an all-zero set is a valid value; the calls write to it or read from it only.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
