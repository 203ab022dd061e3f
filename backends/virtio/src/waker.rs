//! Tells a device's owner that work for it appeared on the host's side.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is called when host-side work for a device appears: from any thread, and quickly. The
/// KVM backend writes to an eventfd.
pub trait Wake: Send + Sync {
    /// Makes the owner's event loop call the device soon.
    fn wake(&self);
}

impl<F: Fn() + Send + Sync> Wake for F {
    fn wake(&self) {
        self();
    }
}

/// A handle that wakes the owner of a device. Clones share one state; wake-ups coalesce until
/// [`HostWaker::rearm`].
#[derive(Clone)]
pub struct HostWaker(Arc<Shared<dyn Wake>>);

struct Shared<W: ?Sized> {
    pending: AtomicBool,
    wake: W,
}

impl HostWaker {
    /// A waker that calls `wake` once for each group of wake-ups.
    pub fn new(wake: impl Wake + 'static) -> Self {
        Self(Arc::new(Shared { pending: AtomicBool::new(false), wake }))
    }

    /// Asks for the device to be called; does nothing while an earlier call is still pending.
    pub fn wake(&self) {
        if !self.0.pending.swap(true, Ordering::AcqRel) {
            self.0.wake.wake();
        }
    }

    /// Lets the next wake-up through. To be called by the device's owner *before* it looks for
    /// work: work that appears afterwards wakes again.
    pub fn rearm(&self) {
        self.0.pending.swap(false, Ordering::AcqRel);
    }
}

impl std::fmt::Debug for HostWaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostWaker")
            .field("pending", &self.0.pending.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn coalesces_until_rearmed() {
        let calls = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&calls);
        let waker = HostWaker::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let clone = waker.clone();
        waker.wake();
        clone.wake();
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        waker.rearm();
        clone.wake();
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }
}
