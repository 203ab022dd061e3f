//! Room for guests: hosts that run side by side share the memory of one computer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::check;
use crate::units::Bytes;

/// The memory that the guests of several hosts share.
///
/// A host without a guest waits until its first one fits beside those of the others. One that has
/// guests never waits: it may need the next to be done with the ones before, and so to make room.
#[derive(Debug)]
pub struct Room {
    size: Bytes,
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    tenants: u64,
    bytes: HashMap<u64, u64>,
}

impl Room {
    /// Room for guests with so much memory in all.
    pub fn new(size: Bytes) -> Arc<Self> {
        Arc::new(Self { size, taken: Mutex::default(), freed: Notify::new() })
    }

    /// As much as is available now, where the system tells it.
    pub fn available() -> Option<Arc<Self>> {
        check::available_memory().map(Self::new)
    }

    pub(super) fn tenant(self: &Arc<Self>) -> Tenant {
        let mut taken = self.lock();
        taken.tenants += 1;
        Tenant { room: self.clone(), number: taken.tenants }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Takes `wanted` if the tenant need not wait.
    fn take(&mut self, tenant: u64, wanted: u64, size: u64) -> bool {
        let own = self.bytes.get(&tenant).copied().unwrap_or_default();
        let all: u64 = self.bytes.values().sum();
        let fits = all.checked_add(wanted).is_some_and(|sum| sum <= size);
        // Nobody else will make room where nobody else has any.
        let may = own > 0 || all == 0 || fits;
        if may {
            *self.bytes.entry(tenant).or_default() += wanted;
        }
        may
    }
}

/// One of the hosts.
#[derive(Debug)]
pub(super) struct Tenant {
    room: Arc<Room>,
    number: u64,
}

impl Tenant {
    /// Waits until there is room for a guest. Cancel-safe.
    pub(super) async fn take(&self, memory: Bytes) -> Place {
        loop {
            let freed = self.room.freed.notified();
            tokio::pin!(freed);
            // Registered before the check, so that room made between the two is not missed.
            freed.as_mut().enable();
            if self.room.lock().take(self.number, memory.get(), self.room.size.get()) {
                return Place { room: self.room.clone(), tenant: self.number, memory };
            }
            tracing::debug!(%memory, "waiting for room beside other guests");
            freed.await;
        }
    }
}

/// Room that a guest has; dropping it gives it to others.
#[derive(Debug)]
pub struct Place {
    room: Arc<Room>,
    tenant: u64,
    memory: Bytes,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.lock();
        if let Some(bytes) = taken.bytes.get_mut(&self.tenant) {
            *bytes -= self.memory.get();
            if *bytes == 0 {
                taken.bytes.remove(&self.tenant);
            }
        }
        drop(taken);
        self.room.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn the_first_guest_of_a_host_waits_until_it_fits_and_others_never_do() {
        let room = Room::new(Bytes::mib(100));
        let (one, two, three) = (room.tenant(), room.tenant(), room.tenant());
        let first = one.take(Bytes::mib(60)).await;
        let beside = two.take(Bytes::mib(40)).await;
        let waiting = tokio::spawn(async move { drop(three.take(Bytes::mib(20)).await) });
        // More than there is, but it has guests.
        let more = one.take(Bytes::mib(60)).await;
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop((first, beside));
        tokio::task::yield_now().await;
        waiting.await.unwrap();
        drop(more);
        assert!(room.lock().bytes.is_empty());
        // Alone, it need not fit.
        drop(two.take(Bytes::mib(200)).await);
    }
}
