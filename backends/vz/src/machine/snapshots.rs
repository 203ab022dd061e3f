//! Snapshot and restore, on the machine's thread.

use std::sync::Arc;
use std::time::Instant;

use vmoon_core::backend::{
    RestoreOptions, RestoreReport, SnapshotFigures, SnapshotImage, check_capability,
};
use vmoon_core::lifecycle::Operation;
use vmoon_core::{Bytes, Capability, Code, Error, Result, SnapshotId, State};

use super::actor::Actor;
use crate::folder::{STATE, disk_name};
use crate::snapshot::{Frozen, VzSnapshot};

impl Actor {
    /// Saves the machine and lets it go on.
    pub(super) fn snapshot(&mut self, id: SnapshotId) -> Result<Arc<dyn SnapshotImage>> {
        let state = self.state();
        state.allows(Operation::Snapshot)?;
        self.check_saveable()?;
        if state == State::Running {
            self.engine()?.pause()?;
        }
        let frozen = self.freeze(id, state == State::Paused);
        if state == State::Running {
            let resumed = self.engine().and_then(crate::framework::Engine::resume);
            if let Err(error) = resumed {
                // It stands still, whatever became of the snapshot.
                self.set_state(State::Paused, Some("it did not go on after a snapshot".to_owned()));
                return Err(error);
            }
        }
        let frozen = Arc::new(frozen?);
        self.snapshots.insert(id, frozen.clone());
        Ok(Arc::new(VzSnapshot { frozen, framework: self.maker.framework.clone() }))
    }

    fn check_saveable(&self) -> Result<()> {
        let Some(words) = &self.unsaveable else { return Ok(()) };
        let devices = self.maker.plan.unsaveable_devices();
        let reason = if devices.is_empty() {
            words.clone()
        } else {
            format!("it cannot save a machine with {}: {words}", devices.join(" and "))
        };
        check_capability("vz", "a snapshot of this machine", &Capability::No(reason.into()))
            .map_err(|error| error.with_hint("make the machine without these devices"))
    }

    fn freeze(&mut self, id: SnapshotId, paused: bool) -> Result<Frozen> {
        let plan = self.maker.plan.clone();
        let draft = self.folder.draft(id)?;
        self.engine()?.save(&draft.file(STATE))?;
        draft.take_disks(&plan)?;
        let kept = draft.finish()?;
        let bytes = kept.size_on_disk();
        // The framework writes all of memory each time; what it holds is what it cost.
        let dirty_pages = bytes / Bytes::PAGE.get();
        Ok(Frozen {
            id,
            figures: SnapshotFigures { dirty_pages, bytes: Bytes(bytes), paused },
            identifier: self.identifier().to_owned(),
            boot: self.folder.clone(),
            kept,
            plan,
            macos: self.maker.framework.facts().macos,
        })
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
        target.plan.check_deterministic(options.deterministic)?;
        target.kept.check(&target.plan)?;
        let begun = Instant::now();
        // From here on an error leaves a machine that is neither here nor there.
        self.go_back(&target, options).inspect_err(|error| {
            self.end_engine();
            let reason = format!("a restore failed: {}", error.full_message());
            self.set_state(State::Crashed, Some(reason));
        })?;
        Ok(RestoreReport { dirty_pages: target.figures.dirty_pages, downtime: begun.elapsed() })
    }

    /// Puts a machine in the snapshot's state in the place of the present one.
    pub(super) fn go_back(&mut self, target: &Frozen, options: RestoreOptions) -> Result<()> {
        self.end_engine();
        self.folder.clone_disks(&target.plan, |index| target.kept.file(&disk_name(index)))?;
        self.remake()?;
        self.engine()?.restore(&target.kept.file(STATE))?;
        self.started.get_or_insert_with(Instant::now);
        self.set_state(State::Paused, None);
        if options.paused || target.figures.paused { Ok(()) } else { self.resume() }
    }
}
