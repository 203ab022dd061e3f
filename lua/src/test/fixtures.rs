//! Fixtures of one run: what one file has booted and set up, others take over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use vmoon_core::vm::{Host, Snapshot};

/// The snapshots of the fixtures that were made, by their content.
#[derive(Debug, Default)]
pub struct Fixtures {
    kept: Mutex<HashMap<String, State>>,
    changed: Notify,
}

#[derive(Debug)]
enum State {
    Making,
    Made(Arc<Snapshot>),
}

impl Fixtures {
    /// The snapshot of this content, as one of `host`'s; none when the caller is to make it, and
    /// to say so with [`Fixtures::publish`] or [`Fixtures::abandon`]. Waits while another does.
    pub(super) async fn claim(&self, key: &str, host: &Arc<Host>) -> Option<Arc<Snapshot>> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the check, so that a change between the two is not missed.
            changed.as_mut().enable();
            {
                let mut kept = self.lock();
                match kept.get(key) {
                    None => {
                        kept.insert(key.to_owned(), State::Making);
                        return None;
                    }
                    Some(State::Made(snapshot)) => return Some(snapshot.shared_with(host)),
                    Some(State::Making) => {}
                }
            }
            changed.await;
        }
    }

    /// Gives the snapshot to whoever wants the same.
    pub(super) fn publish(&self, key: &str, snapshot: Arc<Snapshot>) {
        self.lock().insert(key.to_owned(), State::Made(snapshot));
        self.changed.notify_waiters();
    }

    /// Lets the next who wants this content make it.
    pub(super) fn abandon(&self, key: &str) {
        let mut kept = self.lock();
        if matches!(kept.get(key), Some(State::Making)) {
            kept.remove(key);
            drop(kept);
            self.changed.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, State>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
