//! The thread that owns a machine.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use rustix::net::{SendFlags, send};
use serde_json::json;
use tokio::sync::watch;
use vmoon_core::backend::{BalloonLevel, MachineInfo, Status};
use vmoon_core::disk::DiskContents;
use vmoon_core::lifecycle::Operation;
use vmoon_core::{BootSource, Cid, Error, Result, SnapshotId, State};
use vmoon_virtio::block::Overlay;

use super::balloon::Balloon;
use super::command::{Command, Mailbox, Message};
use super::monitor::{Ended, Inbox, Qemu};
use super::snapshots::Node;
use crate::error::cannot;
use crate::memory::{MemoryImage, Ram};
use crate::plan::{Kind, Plan};
use crate::process::program::Program;
use crate::serve::Served;
use crate::snapshot::{Frozen, no_disk};

/// A machine with all that it is made of. Lives on one thread.
#[derive(Debug)]
pub(super) struct Actor {
    /// The process; none before the machine starts, and after the process died.
    pub(super) qemu: Option<Qemu>,
    /// How many processes the machine has had.
    pub(super) processes: u64,
    pub(super) program: &'static Program,
    pub(super) plan: Arc<Plan>,
    /// The CID that the guest knows itself by.
    pub(super) cid: Cid,
    pub(super) ram: Arc<Ram>,
    pub(super) served: Served,
    /// What to boot; none in a fork.
    pub(super) boot: Option<BootSource>,
    /// Whether each reset of QEMU writes a part of the kernel into RAM.
    pub(super) reset_writes: bool,
    pub(super) status: watch::Sender<Status>,
    pub(super) balloon: Balloon,
    /// The frozen memory that RAM was last equal to; none before the first snapshot.
    pub(super) image: Option<MemoryImage>,
    /// The overlays of the snapshot that the machine last was.
    pub(super) overlays: Vec<Overlay>,
    pub(super) snapshots: HashMap<SnapshotId, Arc<Frozen>>,
    /// The snapshots that the process has open.
    pub(super) nodes: HashMap<SnapshotId, Node>,
    pub(super) nodes_made: u64,
    pub(super) mailbox: Mailbox,
    pub(super) inbox: Inbox,
    pub(super) started: Option<Instant>,
}

impl Actor {
    /// Serves until the machine is closed or every handle is gone; then frees it. `closed` hears
    /// when all that others could notice is gone.
    pub(super) fn live(mut self, closed: &mpsc::SyncSender<()>) {
        loop {
            match self.inbox.next(self.balloon.next_look()) {
                Ok(Message::Command(Command::Close)) | Err(Ended::Abandoned) => break,
                Ok(Message::Command(command)) => self.obey(command),
                Ok(Message::Said(number, said)) if self.is_current(number) => self.hear(said),
                Ok(Message::Silent(number)) if self.is_current(number) => self.lost(),
                Ok(Message::Said(..) | Message::Silent(_)) => {}
                Err(Ended::Late) => self.look_at_balloon(),
            }
        }
        self.qemu = None;
        self.served.console.close();
        if !matches!(self.state(), State::Crashed | State::Created) {
            self.set_state(State::Stopped, Some("closed".to_owned()));
        }
        drop(self);
        // Nobody may be waiting.
        let _ = closed.send(());
    }

    fn is_current(&self, number: u64) -> bool {
        self.qemu.as_ref().is_some_and(|qemu| qemu.is(number))
    }

    /// Carries out one command. A caller that has gone away does not want its answer.
    fn obey(&mut self, command: Command) {
        match command {
            Command::Start(reply) => drop(reply.send(self.start())),
            Command::Pause(reply) => drop(reply.send(self.pause())),
            Command::Resume(reply) => drop(reply.send(self.resume())),
            Command::PressPowerButton(reply) => {
                drop(reply.send(self.ask("system_powerdown").map(drop)));
            }
            Command::BeginStop(reply) => drop(reply.send(self.begin_stop())),
            Command::Kill(reply) => {
                self.kill();
                drop(reply.send(Ok(())));
            }
            Command::Snapshot(id, reply) => drop(reply.send(self.snapshot(id))),
            Command::Restore(id, options, reply) => drop(reply.send(self.restore(id, options))),
            Command::Forget(id, reply) => {
                self.forget(id);
                drop(reply.send(Ok(())));
            }
            Command::Type(bytes, reply) => drop(reply.send(self.type_keys(&bytes))),
            Command::SetBalloon(target, reply) => drop(reply.send(self.set_balloon(target))),
            Command::BalloonStatistics(reply) => self.ask_statistics(reply),
            Command::Disk(index, reply) => drop(reply.send(self.disk(index))),
            Command::Info(reply) => drop(reply.send(self.info())),
            Command::Close => {}
        }
    }

    /// Asks QEMU for something that takes no arguments.
    pub(super) fn ask(&mut self, command: &str) -> Result<serde_json::Value> {
        self.ask_with(command, &json!({}))
    }

    /// Asks QEMU for something.
    pub(super) fn ask_with(
        &mut self,
        command: &str,
        arguments: &serde_json::Value,
    ) -> Result<serde_json::Value> {
        self.qemu.as_mut().ok_or_else(gone)?.ask(&mut self.inbox, command, arguments)
    }

    pub(super) fn state(&self) -> State {
        self.status.borrow().state
    }

    pub(super) fn set_state(&self, state: State, reason: Option<String>) {
        tracing::debug!(%state, reason = reason.as_deref().unwrap_or_default(), "state");
        self.status.send_replace(Status { state, reason });
    }

    fn pause(&mut self) -> Result<()> {
        self.state().allows(Operation::Pause)?;
        self.ask("stop")?;
        self.set_state(State::Paused, None);
        Ok(())
    }

    fn resume(&mut self) -> Result<()> {
        self.state().allows(Operation::Resume)?;
        self.ask("cont")?;
        self.set_state(State::Running, None);
        Ok(())
    }

    fn begin_stop(&mut self) -> Result<()> {
        self.state().allows(Operation::Stop)?;
        if self.state() == State::Paused {
            self.ask("cont")?;
        }
        self.set_state(State::Stopping, None);
        Ok(())
    }

    fn kill(&mut self) {
        if self.state().allows(Operation::Kill).is_ok() {
            if let Err(error) = self.ask("stop") {
                tracing::debug!(%error, "QEMU is killed");
                self.lose_process();
            }
            self.set_state(State::Stopped, Some("killed".to_owned()));
        }
    }

    /// The process has ended, and nobody asked it to.
    fn lost(&mut self) {
        let ending = match &mut self.qemu {
            Some(qemu) => {
                qemu.process.kill();
                qemu.process.ending()
            }
            None => return,
        };
        self.lose_process();
        if !matches!(self.state(), State::Stopped | State::Crashed | State::Created) {
            self.crash(ending);
        }
    }

    /// Ends the process. A restore will start another.
    pub(super) fn lose_process(&mut self) {
        self.qemu = None;
        self.nodes.clear();
        self.reset_writes = false;
        if let Some(mut vhost) = self.served.vhost() {
            vhost.detach();
        }
    }

    pub(super) fn crash(&mut self, reason: String) {
        self.set_state(State::Crashed, Some(reason));
    }

    fn type_keys(&mut self, bytes: &[u8]) -> Result<usize> {
        let keyboards = &self.qemu.as_ref().ok_or_else(gone)?.keyboards;
        let keyboard =
            if self.plan.guest == Kind::Micro { &keyboards.console } else { &keyboards.serial };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let descriptor: BorrowedFd<'_> = std::os::fd::AsFd::as_fd(keyboard);
        match send(descriptor, bytes, flags) {
            Ok(taken) => Ok(taken),
            Err(rustix::io::Errno::AGAIN) => Ok(0),
            Err(error) => Err(cannot("type into the guest's console", error.into())),
        }
    }

    /// What a disk holds now. A request that QEMU has under way may or may not be in it.
    fn disk(&self, index: usize) -> Result<Arc<dyn DiskContents>> {
        let disk = self.served.disks.get(index).ok_or_else(|| no_disk(index))?;
        let disk = disk.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        disk.host().contents(&disk.save())
    }

    fn info(&mut self) -> Result<MachineInfo> {
        let unreadable = |error| cannot("look at the machine's memory", error);
        let dirty_pages = if let Some(image) = &self.image {
            image.differences(&self.ram).map_err(unreadable)?
        } else {
            let ranges = self.ram.populated().map_err(unreadable)?;
            ranges.iter().map(|range| range.len() as u64).sum()
        };
        Ok(MachineInfo {
            uptime: self.started.map(|started| started.elapsed()).unwrap_or_default(),
            host_rss: self.ram.resident().map_err(unreadable)?,
            dirty_pages,
            devices: self.describe(),
        })
    }

    /// Each device's name and what it is doing.
    fn describe(&self) -> Vec<(String, String)> {
        let mut devices = Vec::new();
        devices.extend(self.served.vhost().map(|vhost| vhost.describe()));
        if self.plan.balloon {
            let BalloonLevel { target, actual } = self.balloon.level();
            devices.push(("balloon".to_owned(), format!("{actual} left, target {target}")));
        }
        if self.plan.entropy {
            devices.push(("entropy".to_owned(), "served".to_owned()));
        }
        devices.push(("console".to_owned(), "served".to_owned()));
        for (index, disk) in self.served.disks.iter().enumerate() {
            let disk = disk.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let written = disk.overlay().map_or_else(
                || "writes into its image".to_owned(),
                |overlay| format!("{} blocks written above its image", overlay.len()),
            );
            let text = if disk.is_readonly() { "read-only".to_owned() } else { written };
            devices.push((format!("disk-{index}"), format!("{text}{}", disk.failures())));
        }
        devices
    }
}

/// There is no process to ask.
pub(super) fn gone() -> Error {
    Error::new(vmoon_core::Code::BackendUnavailable, "the machine's QEMU is not running")
        .with_hint("vm:restore(snapshot) starts it again")
        .with_detail("backend", "qemu")
}
