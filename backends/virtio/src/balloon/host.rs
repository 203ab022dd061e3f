//! The host's handle to the balloon.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};
use vmoon_core::backend::{BalloonLevel, BalloonStatistics};
use vmoon_core::error::{Code, Error, Result};
use vmoon_core::units::Bytes;

use super::device::PAGE;
use crate::waker::HostWaker;

/// Sets and watches the balloon of a machine, from any task. Clones share one device.
#[derive(Clone, Debug)]
pub struct BalloonHost {
    pub(super) shared: Arc<Shared>,
    waker: HostWaker,
    memory: Bytes,
}

/// What the host asks of the device, and what the device tells.
#[derive(Debug)]
pub(super) struct Shared {
    wishes: Mutex<Wishes>,
    pub(super) level: watch::Sender<BalloonLevel>,
}

/// What the device has not seen yet.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// Pages that the balloon should hold.
    pub(super) target_pages: Option<u32>,
    /// Who waits for statistics.
    pub(super) statistics: Vec<oneshot::Sender<BalloonStatistics>>,
    /// The device is gone.
    closed: bool,
}

impl Shared {
    pub(super) fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device is gone: whoever waits for it fails.
    pub(super) fn close(&self) {
        let mut wishes = self.wishes();
        wishes.closed = true;
        wishes.statistics.clear();
    }
}

impl BalloonHost {
    pub(super) fn new(memory: Bytes, waker: HostWaker) -> Self {
        let level = watch::Sender::new(BalloonLevel { target: memory, actual: memory });
        let shared = Arc::new(Shared { wishes: Mutex::default(), level });
        Self { shared, waker, memory }
    }

    /// Sets what the guest should be left with; more than the machine has means all of it. Rounds
    /// up to whole pages.
    pub fn set_target(&self, target: Bytes) {
        let left = target.get().min(self.memory.get()).next_multiple_of(PAGE);
        let pages = self.memory.get().saturating_sub(left) / PAGE;
        self.shared.wishes().target_pages = Some(u32::try_from(pages).unwrap_or(u32::MAX));
        self.shared.level.send_modify(|level| level.target = Bytes(left.min(self.memory.get())));
        self.waker.wake();
    }

    /// Where the balloon stands, as it changes.
    pub fn watch(&self) -> watch::Receiver<BalloonLevel> {
        self.shared.level.subscribe()
    }

    /// Asks the guest for its statistics. Waits until it answers: wrap it in a deadline.
    /// Cancel-safe.
    ///
    /// # Errors
    /// `vm.state` once the machine is gone.
    pub async fn statistics(&self) -> Result<BalloonStatistics> {
        let closed = || Error::new(Code::VmState, "the machine is closed");
        let (reply, answer) = oneshot::channel();
        {
            let mut wishes = self.shared.wishes();
            if wishes.closed {
                return Err(closed());
            }
            // Whoever gave up in the meantime is not waited for.
            wishes.statistics.retain(|waiting| !waiting.is_closed());
            wishes.statistics.push(reply);
        }
        self.waker.wake();
        answer.await.map_err(|_| closed())
    }
}
