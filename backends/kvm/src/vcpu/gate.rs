//! Where a vCPU's thread and its machine's thread meet.
//!
//! A restore is a few dozen microseconds of work on each side, and to be woken from sleep takes as
//! long again: so whoever expects the other within microseconds looks for a moment before it
//! sleeps.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::job::{Job, Outcome};

/// How long to look before sleeping, where the other side is about to answer.
pub(super) const MOMENT: Duration = Duration::from_micros(100);

/// What the machine's thread wants of the vCPU's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Run no guest code.
    Park,
    /// Run guest code.
    Run,
    /// End.
    Quit,
}

/// What both sides know.
#[derive(Debug)]
pub(super) struct Understanding {
    pub(super) wanted: Wanted,
    /// No guest code runs, and the last exit is completed.
    pub(super) parked: bool,
    /// Taken by the vCPU's thread once it is parked.
    pub(super) job: Option<Job>,
    /// What came of the last job.
    pub(super) outcome: Option<Outcome>,
}

/// The meeting place.
#[derive(Debug)]
pub(super) struct Gate {
    understanding: Mutex<Understanding>,
    moved: Condvar,
    /// Counts the changes, for those who look without locking.
    changes: AtomicU32,
}

impl Gate {
    /// A gate at which the vCPU is parked.
    pub(super) fn new() -> Self {
        let understanding =
            Understanding { wanted: Wanted::Park, parked: true, job: None, outcome: None };
        Self {
            understanding: Mutex::new(understanding),
            moved: Condvar::new(),
            changes: AtomicU32::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Understanding> {
        self.understanding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is understood and tells the other side.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut Understanding) -> R) -> R {
        let mut understanding = self.lock();
        let result = change(&mut understanding);
        self.changes.fetch_add(1, Ordering::Release);
        drop(understanding);
        self.moved.notify_all();
        result
    }

    /// Waits until `ready` gives something, looking for `moment` before sleeping.
    pub(super) fn wait<T>(
        &self,
        moment: Duration,
        mut ready: impl FnMut(&mut Understanding) -> Option<T>,
    ) -> T {
        let begun = Instant::now();
        loop {
            let seen = self.changes.load(Ordering::Acquire);
            if let Some(result) = ready(&mut self.lock()) {
                return result;
            }
            while self.changes.load(Ordering::Acquire) == seen {
                if begun.elapsed() >= moment {
                    return self.sleep(ready);
                }
                // On a busy host the other side may be waiting for this very processor.
                std::thread::yield_now();
            }
        }
    }

    fn sleep<T>(&self, mut ready: impl FnMut(&mut Understanding) -> Option<T>) -> T {
        let mut understanding = self.lock();
        loop {
            if let Some(result) = ready(&mut understanding) {
                return result;
            }
            understanding = self.moved.wait(understanding).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
