//! The loop of every wait.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use vmoon_protocol::watch::Watch;

use super::file::FileCondition;
use super::port::PortCondition;
use super::process::ExitCondition;
use super::socket::SocketCondition;
use super::unit::UnitCondition;
use crate::{readiness, sys};

/// How long a wait sleeps where something tells of every change it knows of, in case of one that
/// it does not.
pub(super) const RARELY: Duration = Duration::from_secs(1);

/// How long a wait sleeps between two looks where nothing tells of a change. A look costs
/// microseconds.
pub(super) const OFTEN: Duration = Duration::from_millis(5);

/// What is waited for.
pub(super) trait Condition {
    /// Prepares to be woken by whatever happens from now on, and looks.
    fn look(&mut self) -> io::Result<Look>;

    /// The descriptors that become readable when another look is worth it.
    fn wakers(&self) -> Vec<RawFd>;

    /// After how long another look is due in any case.
    fn interval(&self) -> Duration;
}

/// What a look showed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It is true.
    True,
    /// Not yet; one line for people about what there is instead.
    NotYet(String),
    /// It will not become true.
    Never(Never),
}

/// Why something cannot come true any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Never {
    /// One of the Lua API's error codes.
    pub(crate) code: &'static str,
    /// One line for people.
    pub(crate) message: String,
}

/// How a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It came true.
    True,
    /// The event was raised.
    Cancelled,
    /// It cannot come true.
    Never(Never),
}

/// Waits until `wanted` is true or `cancel` is raised; tells `observe` what is seen until then,
/// whenever it changes.
pub(crate) fn wait(
    wanted: &Watch,
    readiness: &Path,
    cancel: &OwnedFd,
    observe: impl FnMut(&str),
) -> io::Result<Outcome> {
    match wanted {
        Watch::Port(port) => run(PortCondition::new(*port), cancel, observe),
        Watch::File(path) => run(FileCondition::exists(path)?, cancel, observe),
        Watch::Gone(path) => run(FileCondition::gone(path)?, cancel, observe),
        Watch::Socket(path) => run(SocketCondition::new(path)?, cancel, observe),
        Watch::Exit(process) => run(ExitCondition::new(process), cancel, observe),
        Watch::Unit(unit) => match UnitCondition::new(unit)? {
            Ok(condition) => run(condition, cancel, observe),
            Err(never) => Ok(Outcome::Never(never)),
        },
        Watch::Ready(name) => match readiness::path(readiness, name) {
            Ok(path) => run(FileCondition::ready(readiness, &path)?, cancel, observe),
            Err(message) => Ok(Outcome::Never(Never { code: "vm.spec", message })),
        },
    }
}

fn run(
    mut condition: impl Condition,
    cancel: &OwnedFd,
    mut observe: impl FnMut(&str),
) -> io::Result<Outcome> {
    let mut told = None;
    loop {
        match condition.look()? {
            Look::True => return Ok(Outcome::True),
            Look::Never(never) => return Ok(Outcome::Never(never)),
            Look::NotYet(seen) => {
                if told.as_ref() != Some(&seen) {
                    observe(&seen);
                    told = Some(seen);
                }
            }
        }
        // `mountinfo` says by POLLPRI that it changed, everything else by POLLIN.
        let events = libc::POLLIN | libc::POLLPRI;
        let mut entries = vec![sys::entry(Some(cancel), libc::POLLIN)];
        entries.extend(condition.wakers().iter().map(|fd| sys::entry(Some(fd), events)));
        sys::poll(&mut entries, Some(condition.interval()))?;
        if entries[0].revents != 0 {
            return Ok(Outcome::Cancelled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmoon_protocol::watch::Process;

    #[test]
    fn a_raised_event_ends_every_wait() {
        let cancel = sys::eventfd().unwrap();
        sys::raise(&cancel);
        for wanted in [
            Watch::Port(1),
            Watch::File(b"/proc/vmoon/none".to_vec()),
            Watch::Gone(b"/proc".to_vec()),
            Watch::Socket(b"/proc/vmoon/none".to_vec()),
            Watch::Exit(Process::Id(1)),
            Watch::Ready("never".to_owned()),
        ] {
            let mut seen = Vec::new();
            let outcome = wait(&wanted, Path::new("/proc/vmoon"), &cancel, |text| {
                seen.push(text.to_owned());
            });
            assert_eq!(outcome.unwrap(), Outcome::Cancelled, "{wanted:?}");
            assert_eq!(seen.len(), 1, "{wanted:?}: {seen:?}");
        }
    }

    #[test]
    fn a_name_that_nobody_can_declare_is_refused() {
        let cancel = sys::eventfd().unwrap();
        let wanted = Watch::Ready("a/b".to_owned());
        let outcome = wait(&wanted, Path::new("/run"), &cancel, |_| ()).unwrap();
        assert!(matches!(outcome, Outcome::Never(never) if never.code == "vm.spec"));
    }
}
