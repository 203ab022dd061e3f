//! Snapshot and restore, in place, on the machine's thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use vmoon_core::backend::{RestoreOptions, RestoreReport, SnapshotFigures, SnapshotImage};
use vmoon_core::lifecycle::Operation;
use vmoon_core::{Bytes, Code, Error, Result, SnapshotId, State};
use vmoon_virtio::RestoreMode;
use vmoon_virtio::block::bytes_added;
use vmoon_virtio::entropy::EntropySource;

use super::actor::Actor;
use crate::memory::PAGE_SIZE;
use crate::memory::dirty::DirtyPages;
use crate::memory::image::MemoryImage;
use crate::snapshot::frozen::{Frozen, KvmSnapshot};
use crate::vm::shell::{Shell, cannot};

impl Actor {
    /// Freezes the machine and lets it go on.
    pub(super) fn snapshot(&mut self, id: SnapshotId) -> Result<Arc<dyn SnapshotImage>> {
        let state = self.state();
        state.allows(Operation::Snapshot)?;
        let frozen = self.freeze(id, state == State::Paused);
        if state == State::Running {
            self.shell.run();
        }
        let frozen = Arc::new(frozen?);
        self.snapshots.insert(id, frozen.clone());
        Ok(Arc::new(KvmSnapshot(frozen)))
    }

    fn freeze(&mut self, id: SnapshotId, paused: bool) -> Result<Frozen> {
        let state = self.shell.save_state()?;
        collect(&mut self.dirty, &self.shell)?;
        let frozen = match &self.image {
            None => self.freeze_base(),
            // SAFETY: the vCPUs are parked, and devices are driven by this thread alone.
            Some(image) => unsafe { image.above(&self.shell.ram, &self.dirty) }.map(|memory| {
                let dirty_pages = self.dirty.count() as u64;
                let bytes = Bytes(memory.layer_bytes() as u64);
                (memory, SnapshotFigures { dirty_pages, bytes, paused })
            }),
        };
        let (memory, mut figures) = frozen.map_err(|error| {
            self.dirty.put_back();
            cannot("keep the snapshot's pages", error.into())
        })?;
        figures.paused = paused;
        let overlays = state.overlays();
        figures.bytes = Bytes(figures.bytes.get() + bytes_added(&self.overlays, &overlays));
        self.image = Some(memory.clone());
        self.overlays = overlays;
        Ok(Frozen { id, plan: self.plan.clone(), memory, state, figures })
    }

    /// The first snapshot: all that was ever written is its layer, and nothing is copied.
    fn freeze_base(&self) -> rustix::io::Result<(MemoryImage, SnapshotFigures)> {
        // SAFETY: as above.
        let base = unsafe { self.shell.ram.freeze() }?;
        let dirty_pages = base.populated_pages();
        let bytes = Bytes(dirty_pages * PAGE_SIZE as u64);
        let figures = SnapshotFigures { dirty_pages, bytes, paused: false };
        Ok((MemoryImage::of_base(base), figures))
    }

    /// Goes back to a snapshot.
    pub(super) fn restore(
        &mut self,
        id: SnapshotId,
        options: RestoreOptions,
    ) -> Result<RestoreReport> {
        self.state().allows(Operation::Restore)?;
        let target = self.snapshots.get(&id).cloned().ok_or_else(|| {
            Error::new(Code::SnapshotNotFound, format!("snapshot {id} does not exist any more"))
        })?;
        target.memory.base().check()?;
        let begun = Instant::now();
        // From here on an error leaves a machine that is neither here nor there.
        let dirty_pages = self.go_back(&target).inspect_err(|error| {
            self.dirty.put_back();
            self.crash(format!("a restore failed: {}", error.full_message()));
        })?;
        self.life.fetch_add(1, Ordering::SeqCst);
        self.draw_entropy(id, options);
        self.catch_up();
        let paused = options.paused || target.figures.paused;
        let state = if paused { State::Paused } else { State::Running };
        if state == State::Running {
            self.shell.run();
        }
        let downtime = begun.elapsed();
        self.set_state(state, None);
        Ok(RestoreReport { dirty_pages, downtime })
    }

    /// What the guest draws from its entropy device in the life that begins.
    pub(super) fn draw_entropy(&self, id: SnapshotId, options: RestoreOptions) {
        if let Some(entropy) = &self.entropy {
            entropy.set(entropy_source(id, options));
        }
    }

    fn go_back(&mut self, target: &Arc<Frozen>) -> Result<u64> {
        let Self { shell, dirty, image, .. } = self;
        let pages = shell.restore_state(target, RestoreMode::InPlace, || {
            collect(dirty, shell)?;
            if let Some(image) = &image {
                dirty.add_differences(image.index(), target.memory.index());
            }
            // SAFETY: the vCPUs are parked, and devices are driven by this thread alone.
            Ok(unsafe { target.memory.put_back(&shell.ram, dirty) })
        })?;
        self.image = Some(target.memory.clone());
        self.overlays = target.state.overlays();
        target.memory.base().check()?;
        Ok(pages)
    }
}

/// Every deterministic run from a snapshot draws the same bytes.
fn entropy_source(id: SnapshotId, options: RestoreOptions) -> EntropySource {
    if options.deterministic {
        let (seed, _) = id.0.as_u64_pair();
        EntropySource::Seeded { seed, position: 0 }
    } else {
        EntropySource::Os
    }
}

fn collect(dirty: &mut DirtyPages, shell: &Shell) -> Result<()> {
    dirty.collect(&shell.vm, &shell.ram).map_err(|error| cannot("read the dirty log", error.into()))
}
