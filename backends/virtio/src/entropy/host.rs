//! The host's handle to the entropy device.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::state::EntropySource;

/// Chooses where the bytes come from. Clones share one device.
#[derive(Clone, Debug, Default)]
pub struct EntropyHost(Arc<Mutex<EntropySource>>);

impl EntropyHost {
    pub(super) fn lock(&self) -> MutexGuard<'_, EntropySource> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next bytes from `source`.
    pub fn set(&self, source: EntropySource) {
        *self.lock() = source;
    }
}
