//! Taking, restoring and deleting snapshots.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use super::machine::{Vm, lock};
use super::snapshot::{RestoreOptions, Snapshot, SnapshotSelector, Source};
use crate::agent::Memo;
use crate::backend::{self, RestoreReport};
use crate::error::{Code, Error, Result};
use crate::lifecycle::Operation;
use crate::units::SnapshotId;

/// The snapshots of one machine.
#[derive(Debug)]
pub(super) struct Tree {
    /// Oldest first.
    kept: Vec<Arc<Snapshot>>,
    /// The snapshot that the machine's present state derives from.
    current: Option<SnapshotId>,
    /// How many were taken, for their default names.
    taken: u64,
    /// The snapshot that this machine was forked from.
    origin: Option<Origin>,
}

/// The snapshot that a machine was forked from.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) snapshot: SnapshotId,
    /// Its connections as this machine holds them.
    pub(super) memo: Option<Memo>,
}

impl Tree {
    pub(super) fn new(origin: Option<Origin>) -> Self {
        let current = origin.as_ref().map(|origin| origin.snapshot);
        Self { kept: Vec::new(), current, taken: 0, origin }
    }
}

impl Vm {
    /// Freezes the machine's state as one unit; the machine goes on.
    ///
    /// # Errors
    /// `vm.state`, `backend.unsupported`.
    pub async fn snapshot(self: &Arc<Self>, name: Option<String>) -> Result<Arc<Snapshot>> {
        let _turn = self.tree.lock().await;
        self.check(Operation::Snapshot)?;
        backend::check_capability(
            self.backend.name(),
            "a snapshot",
            &self.backend.capabilities().snapshot,
        )?;
        let before = self.agent.as_ref().map(|agent| (agent, agent.before_snapshot()));
        let named = || format!("snapshot {:?}", name.as_deref().unwrap_or_default());
        let what = self.transcript.describe(named);
        let taken = self.machine.snapshot(SnapshotId::random());
        let image = self.transcript.note(what, taken).await?;
        let memo = before.map(|(agent, before)| agent.after_snapshot(&before));
        let mut tree = lock(&self.snapshots);
        tree.taken += 1;
        let snapshot = Arc::new(Snapshot {
            id: image.id(),
            name: name.unwrap_or_else(|| format!("snapshot-{}", tree.taken)),
            parent: tree.current,
            created: SystemTime::now(),
            image,
            source: Source {
                vm: Arc::downgrade(self),
                id: self.id(),
                name: self.name().to_owned(),
                host: self.host.clone(),
                backend: self.backend.clone(),
                spec: self.spec.clone(),
            },
            memo,
            deterministic: false,
            deleted: AtomicBool::new(false),
        });
        tree.current = Some(snapshot.id);
        tree.kept.push(snapshot.clone());
        Ok(snapshot)
    }

    /// Goes back, in place, to a snapshot of this machine or to the one that it was forked from.
    ///
    /// # Errors
    /// `vm.state`, `snapshot.not_found`, `snapshot.foreign`; then nothing has changed.
    pub async fn restore(
        &self,
        selector: &SnapshotSelector,
        options: RestoreOptions,
    ) -> Result<RestoreReport> {
        let _turn = self.tree.lock().await;
        self.check(Operation::Restore)?;
        let snapshot = self.select(selector)?;
        let memo = self.memo_of(&snapshot);
        let deterministic = options.deterministic || snapshot.deterministic;
        let held = self.agent.as_ref().map(|agent| (agent, agent.hold()));
        let options_below = backend::RestoreOptions { paused: options.paused, deterministic };
        let what = self.transcript.describe(|| format!("restore {:?}", snapshot.name));
        let restored = self.machine.restore(snapshot.id, options_below);
        let restored = self.transcript.note(what, restored).await;
        if let Some((_, held)) = held {
            match &restored {
                Ok(_) => held.rewind(&memo, !deterministic),
                Err(_) => held.release(),
            }
        }
        let report = restored?;
        lock(&self.snapshots).current = Some(snapshot.id);
        self.restored_at.store(self.console().end(), Ordering::Relaxed);
        Ok(report)
    }

    /// The snapshots that exist, newest first.
    pub fn snapshots(&self) -> Vec<Arc<Snapshot>> {
        lock(&self.snapshots).kept.iter().rev().cloned().collect()
    }

    /// Deletes all but the newest `keep` snapshots; the deleted ones, oldest first.
    pub async fn prune(&self, keep: usize) -> Result<Vec<SnapshotId>> {
        let all = lock(&self.snapshots).kept.clone();
        let mut deleted = Vec::new();
        for snapshot in &all[..all.len().saturating_sub(keep)] {
            match self.forget(snapshot).await {
                Ok(()) => deleted.push(snapshot.id),
                // Another task was faster.
                Err(error) if error.code() == Code::SnapshotNotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    }

    pub(super) async fn forget(&self, snapshot: &Snapshot) -> Result<()> {
        let _turn = self.tree.lock().await;
        snapshot.check_exists()?;
        if !self.is_closed() {
            self.machine.forget(snapshot.id).await?;
        }
        lock(&self.snapshots).kept.retain(|kept| kept.id != snapshot.id);
        snapshot.mark_deleted()
    }

    fn select(&self, selector: &SnapshotSelector) -> Result<Arc<Snapshot>> {
        let tree = lock(&self.snapshots);
        match selector {
            SnapshotSelector::Name(name) => {
                let newest = tree.kept.iter().rev().find(|snapshot| snapshot.name == *name);
                newest.cloned().ok_or_else(|| self.no_such(name, &tree))
            }
            SnapshotSelector::Handle(snapshot) => {
                let is_origin =
                    tree.origin.as_ref().is_some_and(|origin| origin.snapshot == snapshot.id);
                let is_own = std::ptr::eq(snapshot.source.vm.as_ptr(), self);
                if is_own || is_origin {
                    snapshot.check_exists()?;
                    return Ok(snapshot.clone());
                }
                // What was loaded from a directory may be one of this machine's own.
                let own = tree.kept.iter().find(|kept| kept.id == snapshot.id);
                own.cloned().ok_or_else(|| self.foreign(snapshot))
            }
        }
    }

    /// The agent's connections in the snapshot, as this machine holds them.
    fn memo_of(&self, snapshot: &Snapshot) -> Memo {
        let tree = lock(&self.snapshots);
        let memo = match &tree.origin {
            Some(origin) if origin.snapshot == snapshot.id => &origin.memo,
            _ => &snapshot.memo,
        };
        memo.clone().unwrap_or_default()
    }

    fn no_such(&self, name: &str, tree: &Tree) -> Error {
        let mut known: Vec<&str> = tree.kept.iter().map(|snapshot| snapshot.name()).collect();
        known.dedup();
        Error::new(
            Code::SnapshotNotFound,
            format!("the machine {:?} has no snapshot named {name:?}", self.name()),
        )
        .with_hint(if known.is_empty() {
            "vm:snapshot(name) takes one".to_owned()
        } else {
            format!("it has: {}", known.join(", "))
        })
        .with_detail("snapshot", name)
    }

    fn foreign(&self, snapshot: &Snapshot) -> Error {
        Error::new(
            Code::SnapshotForeign,
            format!(
                "the snapshot {:?} belongs to the machine {:?}, not to {:?}",
                snapshot.name,
                snapshot.source.name,
                self.name()
            ),
        )
        .with_hint("snap:fork() makes a new machine from it")
        .with_detail("snapshot", snapshot.id.to_string())
    }
}
