//! A resource that one task uses at a time and that anybody may close at any time.

use std::cell::Cell;

use tokio::sync::{Mutex, MutexGuard, Notify};

/// Holds a value until it is closed. Closing interrupts whoever uses it.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    value: Mutex<Option<T>>,
    open: Cell<bool>,
    closing: Notify,
}

impl<T> Slot<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Mutex::new(Some(value)), open: Cell::new(true), closing: Notify::new() }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.get()
    }

    /// Drops the value, at once or as soon as the task that uses it has been interrupted.
    /// Idempotent.
    pub(crate) fn close(&self) {
        drop(self.take());
    }

    /// Closes, and returns the value if nobody uses it.
    pub(crate) fn take(&self) -> Option<T> {
        if !self.open.replace(false) {
            return None;
        }
        self.closing.notify_waiters();
        self.value.try_lock().ok()?.take()
    }

    /// Uses the value, alone; none when it is closed before the end.
    pub(crate) async fn with<R>(&self, operation: impl AsyncFnOnce(&mut T) -> R) -> Option<R> {
        let mut held = Held { slot: self, value: self.value.lock().await };
        let closing = self.closing.notified();
        tokio::pin!(closing);
        // Registered before the check, so that a close between the two is not missed.
        closing.as_mut().enable();
        if !self.is_open() {
            return None;
        }
        let value = held.value.as_mut()?;
        tokio::select! {
            biased;
            () = closing => None,
            result = operation(value) => Some(result),
        }
    }
}

/// The value in use. A close in the meantime takes effect at its end, however that comes.
struct Held<'a, T> {
    slot: &'a Slot<T>,
    value: MutexGuard<'a, Option<T>>,
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        if !self.slot.is_open() {
            drop(self.value.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[tokio::test(flavor = "current_thread")]
    async fn closing_interrupts_the_user_and_drops_the_value() {
        let value = Rc::new(());
        let slot = Slot::new(value.clone());
        let using = slot.with(async |_| std::future::pending::<()>().await);
        let closing = async {
            tokio::task::yield_now().await;
            slot.close();
            slot.close();
        };
        assert_eq!(tokio::join!(using, closing).0, None);
        assert_eq!(Rc::strong_count(&value), 1);
        assert_eq!(slot.with(async |_| ()).await, None);
    }
}
