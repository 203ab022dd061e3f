//! Values that live on one serial dispatch queue.

use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use dispatch2::{DispatchQueue, DispatchQueueAttr, DispatchRetained};
use objc2::rc::autoreleasepool;
use vmoon_core::{Code, Error, Result};

/// How long making a machine may take: its disks are opened and checked.
const MAKING: Duration = Duration::from_secs(30);

/// A serial queue.
pub(super) fn serial(label: &str) -> DispatchRetained<DispatchQueue> {
    DispatchQueue::new(label, DispatchQueueAttr::SERIAL)
}

/// A value that is made, used and dropped on one serial queue. Cloning shares it.
pub(super) struct Confined<T: 'static>(Arc<Home<T>>);

struct Home<T: 'static> {
    queue: DispatchRetained<DispatchQueue>,
    value: ManuallyDrop<T>,
}

// SAFETY: `value` is reached in closures that run on the serial queue, and nowhere else: so by one
// thread at a time, each of which sees what the one before did.
unsafe impl<T> Send for Home<T> {}
// SAFETY: as above; a shared reference gives nobody a way to the value but through the queue.
unsafe impl<T> Sync for Home<T> {}

/// Carries a value to the queue on which it is dropped.
struct Carried<T>(T);

// SAFETY: whoever makes one hands it to the value's queue, which drops it.
unsafe impl<T> Send for Carried<T> {}

impl<T: 'static> Confined<T> {
    /// Makes a value on the queue, and something for the caller beside it. Must not be called on
    /// the queue.
    pub(super) fn make<R: Send + 'static>(
        queue: &DispatchRetained<DispatchQueue>,
        make: impl FnOnce() -> Result<(T, R)> + Send + 'static,
    ) -> Result<(Self, R)> {
        let (sender, outcome) = mpsc::sync_channel(1);
        let home = queue.clone();
        queue.exec_async(move || {
            let value = autoreleasepool(|_| make()).map(|(value, beside)| {
                (Self(Arc::new(Home { queue: home, value: ManuallyDrop::new(value) })), beside)
            });
            // A caller that no longer waits does not want it: it is dropped, here.
            let _ = sender.send(value);
        });
        outcome.recv_timeout(MAKING).unwrap_or_else(|_| {
            Err(Error::new(Code::BackendUnavailable, "the framework did not make a machine"))
        })
    }

    /// Has the queue do something with the value. Does not wait.
    pub(super) fn spawn(&self, work: impl FnOnce(&T) + Send + 'static) {
        let home = self.0.clone();
        self.0.queue.exec_async(move || {
            let home = home;
            autoreleasepool(|_| work(&home.value));
        });
    }
}

impl<T: 'static> Clone for Confined<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: 'static> fmt::Debug for Confined<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Confined").finish_non_exhaustive()
    }
}

impl<T: 'static> Drop for Home<T> {
    fn drop(&mut self) {
        // SAFETY: the value is taken once, here, and nobody can reach it any more.
        let value = Carried(unsafe { ManuallyDrop::take(&mut self.value) });
        // Not waited for: this may be the queue.
        self.queue.exec_async(move || {
            let value = value;
            autoreleasepool(|_| drop(value));
        });
    }
}
