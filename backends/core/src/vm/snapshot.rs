//! Snapshots, and how to name one.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use super::host::Host;
use super::machine::Vm;
use crate::agent::Memo;
use crate::backend::{Backend, SnapshotFigures, SnapshotImage};
use crate::error::{Code, Error, Result};
use crate::spec::MachineSpec;
use crate::units::{Bytes, MachineId, SnapshotId};

/// A machine as it was: RAM, vCPUs, devices and overlay disks as one unit.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) id: SnapshotId,
    pub(super) name: String,
    pub(super) parent: Option<SnapshotId>,
    pub(super) created: SystemTime,
    pub(super) image: Arc<dyn SnapshotImage>,
    pub(super) source: Source,
    /// None where the machine had no agent.
    pub(super) memo: Option<Memo>,
    /// Every run from it is deterministic, as whoever loaded it wished.
    pub(super) deterministic: bool,
    pub(super) deleted: AtomicBool,
}

/// The machine that a snapshot was taken of.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) vm: Weak<Vm>,
    pub(super) id: MachineId,
    pub(super) name: String,
    pub(super) host: Arc<Host>,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) spec: Arc<MachineSpec>,
}

impl Snapshot {
    /// The id.
    pub fn id(&self) -> SnapshotId {
        self.id
    }

    /// The name: the user's, or `snapshot-1`, `snapshot-2`, … in turn.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The machine that it was taken of.
    pub fn vm_id(&self) -> MachineId {
        self.source.id
    }

    /// The snapshot that the machine's state derived from when this one was taken.
    pub fn parent(&self) -> Option<SnapshotId> {
        self.parent
    }

    /// When it was taken, by the host's clock.
    pub fn created(&self) -> SystemTime {
        self.created
    }

    /// The size of the machine's RAM.
    pub fn memory(&self) -> Bytes {
        self.source.spec.memory
    }

    /// What it cost.
    pub fn figures(&self) -> SnapshotFigures {
        self.image.figures()
    }

    /// Whether it was deleted.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// The same snapshot as another host's: machines made of it live there. It stays when this
    /// one, or the machine that it was taken of, is gone.
    pub fn shared_with(&self, host: &Arc<Host>) -> Arc<Self> {
        Arc::new(Self {
            id: self.id,
            name: self.name.clone(),
            parent: self.parent,
            created: self.created,
            image: self.image.clone(),
            source: Source {
                vm: Weak::new(),
                id: self.source.id,
                name: self.source.name.clone(),
                host: host.clone(),
                backend: self.source.backend.clone(),
                spec: self.source.spec.clone(),
            },
            deterministic: self.deterministic,
            memo: self.memo.clone(),
            deleted: AtomicBool::new(false),
        })
    }

    /// Whether machines can be made of it.
    pub fn can_fork(&self) -> bool {
        self.source.backend.capabilities().fork.is_yes()
    }

    /// Forgets the snapshot. What others need of it is kept.
    ///
    /// # Errors
    /// `snapshot.not_found` when it was deleted before.
    pub async fn delete(&self) -> Result<()> {
        match self.source.vm.upgrade() {
            Some(vm) => vm.forget(self).await,
            None => self.mark_deleted(),
        }
    }

    pub(super) fn mark_deleted(&self) -> Result<()> {
        if self.deleted.swap(true, Ordering::AcqRel) { Err(self.not_found()) } else { Ok(()) }
    }

    pub(super) fn check_exists(&self) -> Result<()> {
        if self.is_deleted() { Err(self.not_found()) } else { Ok(()) }
    }

    pub(super) fn not_found(&self) -> Error {
        Error::new(Code::SnapshotNotFound, format!("the snapshot {:?} was deleted", self.name))
            .with_hint("vm:snapshots() lists those that exist")
            .with_detail("snapshot", self.id.to_string())
    }
}

/// Which snapshot.
#[derive(Clone, Debug)]
pub enum SnapshotSelector {
    /// This one.
    Handle(Arc<Snapshot>),
    /// The newest of the machine's snapshots that bears this name.
    Name(String),
}

impl fmt::Display for SnapshotSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handle(snapshot) => f.write_str(&snapshot.name),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl From<Arc<Snapshot>> for SnapshotSelector {
    fn from(snapshot: Arc<Snapshot>) -> Self {
        Self::Handle(snapshot)
    }
}

impl From<&str> for SnapshotSelector {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

/// How a machine goes on from a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreOptions {
    /// Hold the machine paused rather than leave it in the snapshot's state.
    pub paused: bool,
    /// Give the guest neither fresh entropy nor the wall clock: every run from the snapshot is
    /// the same.
    pub deterministic: bool,
}
