//! The faults of a device, shared by its two ends.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmoon_core::faults::FaultId;

use crate::waker::HostWaker;

/// A rule in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active<R> {
    /// Its name.
    pub id: FaultId,
    /// What it says.
    pub rule: R,
    /// How much that it is about has come by: requests or bytes.
    pub seen: u64,
    /// How often it was met.
    pub hits: u64,
}

/// The rules of one device. Clones share them. A device without rules pays for one load a request.
#[derive(Clone, Debug)]
pub struct FaultRules<R>(Arc<Shared<R>>);

#[derive(Debug)]
struct Shared<R> {
    any: AtomicBool,
    changes: AtomicU64,
    rules: Mutex<Vec<Active<R>>>,
    waker: HostWaker,
}

impl<R: Clone> FaultRules<R> {
    /// No rules yet; changes call the device's owner.
    pub(crate) fn new(waker: HostWaker) -> Self {
        let (any, rules) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        Self(Arc::new(Shared { any, changes: AtomicU64::new(0), rules, waker }))
    }

    /// Adds a rule.
    pub fn insert(&self, id: FaultId, rule: R) {
        self.change(|rules| rules.push(Active { id, rule, seen: 0, hits: 0 }));
        self.0.waker.wake();
    }

    /// Removes a rule, if it is there.
    pub fn remove(&self, id: FaultId) {
        if self.any() {
            self.change(|rules| rules.retain(|active| active.id != id));
            self.0.waker.wake();
        }
    }

    /// The rules in force.
    pub fn active(&self) -> Vec<Active<R>> {
        if self.any() { self.lock().clone() } else { Vec::new() }
    }

    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        self.0.any.load(Ordering::Acquire)
    }

    /// How often the rules were changed.
    pub(crate) fn changes(&self) -> u64 {
        self.0.changes.load(Ordering::Acquire)
    }

    /// Goes back to the rules of a snapshot.
    pub(crate) fn restore(&self, saved: &[Active<R>]) {
        if self.any() || !saved.is_empty() {
            self.change(|rules| saved.clone_into(rules));
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<Active<R>>> {
        self.0.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Active<R>>)) {
        let mut rules = self.lock();
        change(&mut rules);
        self.0.any.store(!rules.is_empty(), Ordering::Release);
        self.0.changes.fetch_add(1, Ordering::Release);
    }
}
