//! A machine frozen at one moment.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use vmoon_core::backend::{Forked, SnapshotFigures, SnapshotImage};
use vmoon_core::disk::DiskContents;
use vmoon_core::saved::Progress;
use vmoon_core::spec::Identity;
use vmoon_core::{Bytes, Cid, Code, Error, Result, SnapshotId};
use vmoon_virtio::DeviceState;
use vmoon_virtio::block::{BlockHost, BlockState, Overlay};
use vmoon_virtio::entropy::EntropySource;

use super::saved;
use crate::machine::birth::{self, Origin};
use crate::memory::MemoryImage;
use crate::plan::Plan;
use crate::state::Container;

/// Everything that a machine was.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) id: SnapshotId,
    pub(crate) plan: Arc<Plan>,
    /// The version of the QEMU that saved it.
    pub(crate) version: String,
    pub(crate) memory: MemoryImage,
    /// Processors and QEMU's devices.
    pub(crate) container: Container,
    pub(crate) state: OwnState,
    pub(crate) figures: SnapshotFigures,
}

/// What this process, not QEMU, holds of a machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OwnState {
    /// The CID that the guest knows itself by.
    pub(crate) cid: Cid,
    pub(crate) vsock: Option<DeviceState>,
    /// Each disk with what was written above its image.
    pub(crate) disks: Vec<BlockState>,
    pub(crate) entropy: EntropySource,
    /// The balloon's target, and what the guest was left with.
    pub(crate) balloon: (Bytes, Bytes),
}

impl OwnState {
    /// What was written above the images of disks, in their order.
    pub(crate) fn overlays(&self) -> Vec<Overlay> {
        self.disks.iter().map(|disk| disk.overlay.clone().unwrap_or_default()).collect()
    }
}

/// The handle to a frozen machine that others hold.
#[derive(Clone, Debug)]
pub(crate) struct QemuSnapshot(pub(crate) Arc<Frozen>);

#[async_trait]
impl SnapshotImage for QemuSnapshot {
    fn id(&self) -> SnapshotId {
        self.0.id
    }

    fn figures(&self) -> SnapshotFigures {
        self.0.figures
    }

    async fn fork(&self, identity: Identity, deterministic: bool) -> Result<Forked> {
        let origin = Origin::Snapshot(self.0.clone(), deterministic);
        let (machine, connections) = birth::bear(self.0.plan.clone(), origin, &identity).await?;
        Ok(Forked { machine: Arc::new(machine), connections, snapshot: Arc::new(self.clone()) })
    }

    async fn disk(&self, index: usize) -> Result<Arc<dyn DiskContents>> {
        let frozen = self.0.clone();
        blocking(move || {
            let disk = frozen.plan.disks.get(index).zip(frozen.state.disks.get(index));
            let (spec, state) = disk.ok_or_else(|| no_disk(index))?;
            BlockHost::open(spec)?.contents(state)
        })
        .await
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

/// The spec has fewer disks.
pub(crate) fn no_disk(index: usize) -> Error {
    Error::new(Code::VmSpec, format!("the machine has no disk at place {index}"))
}

/// Runs file work off the event loop.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Error::new(Code::FileIo, "the work on the snapshot's files died").with_source(error))
    })
}
