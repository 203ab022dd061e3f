//! Epochs, and the frame that tells a guest that it woke up in another.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use vmoon_protocol::message::Life;

use crate::error::{Code, Error, Result};

/// The lives of one machine.
#[derive(Debug)]
pub(super) struct Lives {
    /// The epoch of the present life; watched by commands, which do not outlive it.
    present: watch::Sender<u64>,
    /// The epoch that the guest has not heard of yet; 0 when it has.
    pending: AtomicU64,
}

impl Lives {
    /// A first life. `pending` when the guest, a fork, does not know of it yet.
    pub(super) fn new(epoch: u64, pending: bool) -> Self {
        Self {
            present: watch::Sender::new(epoch),
            pending: AtomicU64::new(if pending { epoch } else { 0 }),
        }
    }

    pub(super) fn present(&self) -> u64 {
        *self.present.borrow()
    }

    /// Begins a new life; every command that is still of the old one fails. Without `announce` the guest does
    /// not hear of it.
    pub(super) fn begin(&self, announce: bool) {
        let epoch = self.present() + 1;
        self.pending.store(if announce { epoch } else { 0 }, Ordering::Relaxed);
        self.present.send_replace(epoch);
    }

    /// Returns when `life` is over. A command that a restore keeps moves on to the next one.
    pub(super) async fn over(&self, life: impl Fn() -> u64) {
        let mut present = self.present.subscribe();
        // The sender lives as long as `self`.
        let _ = present.wait_for(|epoch| *epoch > life()).await;
    }

    /// The epoch that must be announced ahead of the next command.
    pub(super) fn pending(&self) -> Option<u64> {
        let epoch = self.pending.load(Ordering::Relaxed);
        (epoch != 0).then_some(epoch)
    }

    /// The guest has answered after it was told of `epoch`.
    pub(super) fn confirm(&self, epoch: u64) {
        let _ = self.pending.compare_exchange(epoch, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// The payload for `epoch`, with fresh entropy and the wall clock of this moment.
pub(super) fn announce(epoch: u64) -> Result<[u8; Life::LEN]> {
    announce_at(epoch, SystemTime::now())
}

/// The same, with another wall clock.
pub(super) fn announce_at(epoch: u64, now: SystemTime) -> Result<[u8; Life::LEN]> {
    let mut entropy = [0; 32];
    getrandom::fill(&mut entropy).map_err(|error| {
        Error::new(Code::SnapshotEntropy, "the host has no entropy to give").with_source(error)
    })?;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let unix_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    Ok(Life { epoch, unix_ns, entropy }.encode())
}
