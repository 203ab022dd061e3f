//! What wakes a machine's thread.

use std::io;
use std::os::fd::AsRawFd;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

/// A reason to wake up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wakeup {
    /// A command was sent.
    Command,
    /// The guest kicked a queue of this device.
    Kicked(usize),
    /// This device has work from the host's side.
    HostWork(usize),
}

impl Wakeup {
    fn token(self) -> u64 {
        match self {
            Self::Command => 0,
            Self::Kicked(device) => 1 + 2 * device as u64,
            Self::HostWork(device) => 2 + 2 * device as u64,
        }
    }

    fn from_token(token: u64) -> Self {
        let device = usize::try_from(token.saturating_sub(1) / 2).unwrap_or(usize::MAX);
        match token {
            0 => Self::Command,
            odd if odd % 2 == 1 => Self::Kicked(device),
            _ => Self::HostWork(device),
        }
    }
}

/// The set of event file descriptors that a machine's thread waits for.
pub(crate) struct Wakeups {
    epoll: Epoll,
    ready: Vec<EpollEvent>,
}

impl std::fmt::Debug for Wakeups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wakeups").finish_non_exhaustive()
    }
}

impl Wakeups {
    /// An empty set.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { epoll: Epoll::new()?, ready: vec![EpollEvent::default(); 32] })
    }

    /// Adds a descriptor. Edge-triggered: each write wakes once, and nothing needs to be read
    /// back.
    pub(crate) fn add(&self, event: &EventFd, wakeup: Wakeup) -> io::Result<()> {
        let interest = EventSet::IN | EventSet::EDGE_TRIGGERED;
        let entry = EpollEvent::new(interest, wakeup.token());
        self.epoll.ctl(ControlOperation::Add, event.as_raw_fd(), entry)
    }

    /// Waits until something happened and calls `serve` for each of it.
    pub(crate) fn wait(&mut self, mut serve: impl FnMut(Wakeup)) -> io::Result<()> {
        let count = match self.epoll.wait(-1, &mut self.ready) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        };
        for event in &self.ready[..count] {
            serve(Wakeup::from_token(event.data()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip() {
        for wakeup in [Wakeup::Command, Wakeup::Kicked(0), Wakeup::HostWork(0), Wakeup::Kicked(13)]
        {
            assert_eq!(Wakeup::from_token(wakeup.token()), wakeup);
        }
    }
}
