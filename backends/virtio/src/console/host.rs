//! The host's keyboard.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::waker::HostWaker;

/// How many bytes wait for the guest at most.
const CAPACITY: usize = 64 << 10;

/// Types into a machine's console, from any thread.
#[derive(Clone, Debug)]
pub struct ConsoleHost {
    pub(super) input: Arc<Input>,
    waker: HostWaker,
}

/// What was typed and the guest has not taken.
#[derive(Debug, Default)]
pub(super) struct Input(Mutex<VecDeque<u8>>);

impl Input {
    pub(super) fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConsoleHost {
    pub(super) fn new(waker: HostWaker) -> Self {
        Self { input: Arc::default(), waker }
    }

    /// Types; returns for how many bytes there was room.
    pub fn type_input(&self, bytes: &[u8]) -> usize {
        let mut input = self.input.lock();
        let taken = bytes.len().min(CAPACITY.saturating_sub(input.len()));
        input.extend(&bytes[..taken]);
        drop(input);
        self.waker.wake();
        taken
    }
}
