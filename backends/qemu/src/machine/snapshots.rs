//! Snapshot and restore, in place, on the machine's thread.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use serde_json::json;
use vmoon_core::backend::{RestoreOptions, RestoreReport, SnapshotFigures, SnapshotImage};
use vmoon_core::lifecycle::Operation;
use vmoon_core::{Bytes, Code, Error, Result, SnapshotId, State};
use vmoon_virtio::RestoreMode;
use vmoon_virtio::block::bytes_added;
use vmoon_virtio::entropy::EntropySource;

use super::actor::Actor;
use super::monitor::Job;
use crate::error::cannot;
use crate::memory::MemoryImage;
use crate::snapshot::{Frozen, OwnState, QemuSnapshot};
use crate::state::{Container, TAG};

/// A snapshot's container as the process has it open. It is the process's own: QEMU writes to it
/// when it loads.
#[derive(Debug)]
pub(super) struct Node {
    name: String,
    /// Kept open as long as the process has it open.
    container: Container,
}

impl Actor {
    /// Freezes the machine and lets it go on.
    pub(super) fn snapshot(&mut self, id: SnapshotId) -> Result<Arc<dyn SnapshotImage>> {
        let state = self.state();
        state.allows(Operation::Snapshot)?;
        if state == State::Running {
            self.ask("stop")?;
        }
        let frozen = self.freeze(id, state == State::Paused);
        if state == State::Running {
            self.ask("cont")?;
        }
        let frozen = Arc::new(frozen?);
        self.image = Some(frozen.memory.clone());
        self.overlays = frozen.state.overlays();
        self.snapshots.insert(id, frozen.clone());
        Ok(Arc::new(QemuSnapshot(frozen)))
    }

    fn freeze(&mut self, id: SnapshotId, paused: bool) -> Result<Frozen> {
        let failed = |error| cannot("keep the snapshot", error);
        self.open(id, Container::empty().map_err(failed)?)?;
        let job = self.begin_job("snapshot-save", id)?;
        // Meanwhile memory is looked at.
        // SAFETY: the processors have stopped, and with them vhost's rings; QEMU's devices were
        // drained before it answered, and what it saves it only reads.
        let memory = unsafe { MemoryImage::freeze(&self.ram, self.image.as_ref()) };
        self.end_job(&job)?;
        let node = self.nodes.get(&id).expect("it was opened");
        if self.plan.vsock {
            node.container.keep_connections(self.cid).map_err(failed)?;
        }
        let container = node.container.copy().map_err(failed)?;
        let own = self.own_state();
        let memory = memory.map_err(failed)?;
        let bytes = memory.own_bytes()
            + container.resident().map_err(failed)?
            + bytes_added(&self.overlays, &own.overlays());
        let figures =
            SnapshotFigures { dirty_pages: memory.changed(), bytes: Bytes(bytes), paused };
        let version = self.program.version.clone();
        let plan = self.plan.clone();
        Ok(Frozen { id, plan, version, memory, container, state: own, figures })
    }

    /// What this process holds of the machine.
    fn own_state(&self) -> OwnState {
        let save = |disk: &std::sync::Mutex<vmoon_virtio::block::Disk>| {
            disk.lock().unwrap_or_else(PoisonError::into_inner).save()
        };
        let level = self.balloon.level();
        OwnState {
            cid: self.cid,
            vsock: self.served.vhost().map(|vhost| vhost.save()),
            disks: self.served.disks.iter().map(save).collect(),
            entropy: self.served.entropy.source(),
            balloon: (level.target, level.actual),
        }
    }

    /// Opens a snapshot's container in the process.
    fn open(&mut self, id: SnapshotId, container: Container) -> Result<()> {
        self.nodes_made += 1;
        let name = format!("state-{}", self.nodes_made);
        let file = json!({
            "driver": "file",
            "filename": container.path(),
            "locking": "off",
            "cache": { "no-flush": true },
        });
        self.ask_with(
            "blockdev-add",
            &json!({ "driver": "qcow2", "node-name": name, "file": file }),
        )?;
        self.nodes.insert(id, Node { name, container });
        Ok(())
    }

    /// Begins to save to or load from a snapshot's container.
    fn begin_job(&mut self, command: &'static str, id: SnapshotId) -> Result<Job> {
        let node = &self.nodes.get(&id).expect("it was opened").name;
        let arguments = json!({ "tag": TAG, "vmstate": node, "devices": [node] });
        self.qemu.as_mut().ok_or_else(super::actor::gone)?.begin_job(command, arguments)
    }

    fn end_job(&mut self, job: &Job) -> Result<()> {
        self.qemu.as_mut().ok_or_else(super::actor::gone)?.end_job(&mut self.inbox, job)
    }

    /// Forgets a snapshot.
    pub(super) fn forget(&mut self, id: SnapshotId) {
        self.snapshots.remove(&id);
        if let Some(node) = self.nodes.remove(&id)
            && let Err(error) = self.ask_with("blockdev-del", &json!({ "node-name": node.name }))
        {
            tracing::debug!(%error, "a snapshot stays open in QEMU");
        }
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
        let begun = Instant::now();
        self.hold()?;
        // From here on an error leaves a machine that is neither here nor there.
        let restored = self.go_back(&target, RestoreMode::InPlace).and_then(|dirty_pages| {
            self.served.entropy.set(entropy_source(id, options));
            let paused = options.paused || target.figures.paused;
            if !paused {
                self.ask("cont")?;
            }
            Ok((dirty_pages, paused))
        });
        let (dirty_pages, paused) = restored.inspect_err(|error| {
            self.crash(format!("a restore failed: {}", error.full_message()));
        })?;
        let downtime = begun.elapsed();
        self.set_state(if paused { State::Paused } else { State::Running }, None);
        Ok(RestoreReport { dirty_pages, downtime })
    }

    /// Stops the guest in a way that it can be put back from; starts a process where none is left.
    fn hold(&mut self) -> Result<()> {
        match self.state() {
            _ if self.qemu.is_none() => return self.spawn_empty(),
            State::Running => self.ask("stop").map(drop)?,
            State::Paused => {}
            // A guest that has ended must be reset before QEMU lets it run again.
            _ => {
                let status = self.ask("query-status")?;
                if status["running"] == true {
                    self.ask("stop")?;
                }
                if matches!(status["status"].as_str(), Some("shutdown" | "internal-error")) {
                    self.reset()?;
                }
            }
        }
        Ok(())
    }

    fn reset(&mut self) -> Result<()> {
        // Whatever QEMU said of the guest's end has been heard, or does not matter any more.
        self.inbox.forget_events();
        self.ask_with("set-action", &json!({ "reboot": "reset" }))?;
        self.ask("system_reset")?;
        let qemu = self.qemu.as_mut().ok_or_else(super::actor::gone)?;
        qemu.wait_event(&mut self.inbox, "RESET")?;
        self.ask_with("set-action", &json!({ "reboot": "shutdown" })).map(drop)
    }

    /// Takes on the state of a snapshot, for the first time.
    pub(super) fn wake_up_in(&mut self, frozen: Arc<Frozen>, deterministic: bool) -> Result<()> {
        self.spawn_empty()?;
        self.go_back(&frozen, RestoreMode::Fresh)?;
        let options = RestoreOptions { paused: true, deterministic };
        self.served.entropy.set(entropy_source(frozen.id, options));
        self.started = Some(Instant::now());
        self.snapshots.insert(frozen.id, frozen);
        Ok(())
    }

    /// Puts everything back; how many pages that took. The guest does not run.
    fn go_back(&mut self, target: &Arc<Frozen>, mode: RestoreMode) -> Result<u64> {
        if let Some(qemu) = &self.qemu {
            qemu.attendant().answer_entropy();
        }
        let OwnState { vsock, disks, entropy, balloon, .. } = &target.state;
        if let (Some(mut vhost), Some(state)) = (self.served.vhost(), vsock) {
            vhost.restore(state, mode).map_err(|error| {
                let message = "the snapshot's vsock device does not fit";
                Error::new(Code::SnapshotIncompatible, message).with_source(error)
            })?;
        }
        for (disk, state) in self.served.disks.iter().zip(disks) {
            disk.lock().unwrap_or_else(PoisonError::into_inner).set_overlay(state.overlay.clone());
        }
        self.served.entropy.set(*entropy);
        // Before QEMU loads: its devices look at their rings.
        let mut changed = self.put_memory_back(target)?;
        if !self.nodes.contains_key(&target.id) {
            let copy = target.container.copy();
            self.open(target.id, copy.map_err(|error| cannot("copy the snapshot", error))?)?;
        }
        let job = self.begin_job("snapshot-load", target.id)?;
        self.end_job(&job)?;
        if self.reset_writes {
            changed += self.put_memory_back(target)?;
        }
        self.image = Some(target.memory.clone());
        self.overlays = target.state.overlays();
        let (target, actual) = *balloon;
        self.balloon.restore(vmoon_core::backend::BalloonLevel { target, actual });
        self.inbox.forget_events();
        Ok(changed)
    }

    fn put_memory_back(&self, target: &Frozen) -> Result<u64> {
        // SAFETY: the processors have stopped, and no device looks at memory.
        unsafe { target.memory.put_back(&self.ram) }
            .map_err(|error| cannot("put the machine's memory back", error))
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
