//! vCPUs that are to make no progress, though their machine runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmoon_core::faults::FaultId;

/// Which vCPU is held, and by which fault.
pub(crate) type Hold = (FaultId, usize);

/// The holds on one machine's vCPUs, as its thread and its handle share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holds(Arc<Mutex<Vec<Hold>>>);

impl Holds {
    fn lock(&self) -> MutexGuard<'_, Vec<Hold>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All holds.
    pub(crate) fn all(&self) -> Vec<Hold> {
        self.lock().clone()
    }

    /// Goes back to the holds of a snapshot.
    pub(crate) fn restore(&self, saved: &[Hold]) {
        saved.clone_into(&mut self.lock());
    }

    /// Adds one.
    pub(crate) fn insert(&self, id: FaultId, vcpu: usize) {
        self.lock().push((id, vcpu));
    }

    /// Removes one; whether it was there.
    pub(crate) fn remove(&self, id: FaultId) -> bool {
        let mut holds = self.lock();
        let before = holds.len();
        holds.retain(|(known, _)| *known != id);
        holds.len() < before
    }
}
