//! How far a long work on files is, and the way to stop it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A snapshot is written.
    Saving,
    /// A snapshot is read.
    Loading,
    /// The hashes of a snapshot are checked.
    Verifying,
    /// A disk is written to an image.
    Committing,
    /// Files are copied into the guest.
    CopyingIn,
    /// Files are copied out of the guest.
    CopyingOut,
}

/// How far a work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is being done.
    pub work: Work,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
    /// Whether this is the last that is heard of it.
    pub ended: bool,
}

/// Somebody who wants to hear of steps.
pub type Listener = Arc<dyn Fn(Step) + Send + Sync>;

/// One work. Cloning shares it.
#[derive(Clone)]
pub struct Progress(Arc<Inner>);

struct Inner {
    work: Work,
    listener: Option<Listener>,
    done: AtomicU64,
    total: AtomicU64,
    stopped: AtomicBool,
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("work", &self.0.work).finish_non_exhaustive()
    }
}

impl Progress {
    /// A work that has not begun.
    pub fn new(work: Work, listener: Option<Listener>) -> Self {
        Self(Arc::new(Inner {
            work,
            listener,
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        }))
    }

    /// Says how many bytes there are in all.
    pub fn set_total(&self, bytes: u64) {
        self.0.total.store(bytes, Ordering::Relaxed);
    }

    /// Says that there are more bytes than was known.
    pub fn add_total(&self, bytes: u64) {
        self.0.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Some more bytes are done.
    ///
    /// # Errors
    /// `Interrupted` when the work is no longer wanted.
    pub fn advance(&self, bytes: u64) -> io::Result<()> {
        if self.0.stopped.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "the work was stopped"));
        }
        let done = self.0.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.tell(done, false);
        Ok(())
    }

    /// Stops the work at its next step, unless it has ended, when the result is dropped.
    pub fn stop_on_drop(&self) -> StopOnDrop {
        StopOnDrop(self.clone())
    }

    fn tell(&self, done: u64, ended: bool) {
        if let Some(listener) = &self.0.listener {
            let total = self.0.total.load(Ordering::Relaxed);
            listener(Step { work: self.0.work, done, total, ended });
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            let (done, total) = (*self.done.get_mut(), *self.total.get_mut());
            listener(Step { work: self.work, done, total, ended: true });
        }
    }
}

/// Stops a work when it is dropped.
#[derive(Debug)]
pub struct StopOnDrop(Progress);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.0.stopped.store(true, Ordering::Relaxed);
    }
}
