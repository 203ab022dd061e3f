//! A machine's saved state, kept in its folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use vmoon_core::backend::{Forked, SnapshotFigures, SnapshotImage};
use vmoon_core::disk::DiskContents;
use vmoon_core::saved::Progress;
use vmoon_core::spec::Identity;
use vmoon_core::{Code, Error, Result, SnapshotId};

use super::saved;
use crate::disk::RawImage;
use crate::folder::{Folder, Kept, disk_name};
use crate::framework::Framework;
use crate::machine::birth::{self, Origin};
use crate::plan::Plan;

/// A machine as it was.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) id: SnapshotId,
    pub(crate) figures: SnapshotFigures,
    /// The framework restores the state into a machine of this identifier alone.
    pub(crate) identifier: Vec<u8>,
    /// Where the kernel and the initramfs are.
    pub(crate) boot: Arc<Folder>,
    /// Where memory, devices and disks are.
    pub(crate) kept: Kept,
    pub(crate) plan: Arc<Plan>,
    /// The macOS that saved it.
    pub(crate) macos: (u32, u32),
}

/// The handle to a saved state.
#[derive(Clone, Debug)]
pub(crate) struct VzSnapshot {
    pub(crate) frozen: Arc<Frozen>,
    pub(crate) framework: Arc<dyn Framework>,
}

#[async_trait]
impl SnapshotImage for VzSnapshot {
    fn id(&self) -> SnapshotId {
        self.frozen.id
    }

    fn figures(&self) -> SnapshotFigures {
        self.frozen.figures
    }

    /// The one machine of this snapshot, brought back; its address on the network is the old one.
    async fn fork(&self, _: Identity, deterministic: bool) -> Result<Forked> {
        self.frozen.plan.check_deterministic(deterministic)?;
        let (framework, plan) = (self.framework.clone(), self.frozen.plan.clone());
        let origin = Origin::Snapshot(self.frozen.clone());
        let machine = Arc::new(birth::bear(framework, plan, origin).await?);
        Ok(Forked { machine, connections: Vec::new(), snapshot: Arc::new(self.clone()) })
    }

    async fn disk(&self, index: usize) -> Result<Arc<dyn DiskContents>> {
        let disk = &self.frozen.plan.disks[index];
        let path =
            if disk.cloned { self.frozen.kept.file(&disk_name(index)) } else { disk.image.clone() };
        Ok(Arc::new(RawImage::open(&path)?))
    }

    async fn save(
        &self,
        directory: &Path,
        annotations: serde_json::Value,
        progress: Progress,
    ) -> Result<()> {
        let (frozen, directory): (_, PathBuf) = (self.frozen.clone(), directory.to_owned());
        blocking(move || saved::write(&frozen, &directory, annotations, progress)).await
    }
}

/// Runs what waits for a disk where waiting hurts nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Error::new(Code::FileIo, "the work on the snapshot's files died").with_source(error))
    })
}
