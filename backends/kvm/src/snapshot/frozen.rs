//! A machine frozen at one moment.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use vmoon_core::backend::{Forked, SnapshotFigures, SnapshotImage};
use vmoon_core::disk::DiskContents;
use vmoon_core::saved::Progress;
use vmoon_core::spec::Identity;
use vmoon_core::{Code, Error, Result, SnapshotId};
use vmoon_virtio::block::BlockHost;

use super::saved;
use crate::memory::image::MemoryImage;
use crate::transport::TransportState;
use crate::vm::plan::Plan;
use crate::vm::state::MachineState;

/// Everything that a machine was: memory, shared with its ancestors, and state.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) id: SnapshotId,
    pub(crate) plan: Arc<Plan>,
    pub(crate) memory: MemoryImage,
    pub(crate) state: MachineState,
    pub(crate) figures: SnapshotFigures,
}

impl Frozen {
    /// An overlay disk as it was. The image beneath is opened again: a snapshot holds no files.
    fn disk(&self, index: usize) -> Result<Arc<dyn DiskContents>> {
        let plan = self.plan.disks().nth(index).ok_or_else(|| no_disk(index))?;
        let mut states = self.state.devices.iter().filter_map(TransportState::block);
        let state = states.nth(index).ok_or_else(|| no_disk(index))?;
        BlockHost::open(&plan)?.contents(state)
    }
}

/// The spec has fewer disks.
pub(crate) fn no_disk(index: usize) -> Error {
    Error::new(Code::VmSpec, format!("the machine has no disk at place {index}"))
}

/// The handle to a frozen machine that others hold.
#[derive(Clone, Debug)]
pub(crate) struct KvmSnapshot(pub(crate) Arc<Frozen>);

#[async_trait]
impl SnapshotImage for KvmSnapshot {
    fn id(&self) -> SnapshotId {
        self.0.id
    }

    fn figures(&self) -> SnapshotFigures {
        self.0.figures
    }

    async fn fork(&self, identity: Identity, deterministic: bool) -> Result<Forked> {
        super::fork::fork(self.0.clone(), identity, deterministic).await
    }

    async fn disk(&self, index: usize) -> Result<Arc<dyn DiskContents>> {
        let frozen = self.0.clone();
        blocking(move || frozen.disk(index)).await
    }

    async fn save(
        &self,
        directory: &Path,
        annotations: serde_json::Value,
        progress: Progress,
    ) -> Result<()> {
        let (frozen, directory) = (self.0.clone(), directory.to_owned());
        blocking(move || saved::write(&frozen, &directory, annotations, progress)).await
    }
}

/// Runs file work off the event loop.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Error::new(Code::FileIo, "the work on the snapshot's files died").with_source(error))
    })
}
