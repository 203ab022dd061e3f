//! The thread that owns a machine.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use tokio::sync::watch;
use vmoon_core::backend::{MachineInfo, Status};
use vmoon_core::disk::DiskContents;
use vmoon_core::lifecycle::Operation;
use vmoon_core::spec::Guest;
use vmoon_core::{BootSource, Bytes, Console, Result, SnapshotId, State};
use vmoon_virtio::block::{BlockHost, Overlay};
use vmoon_virtio::entropy::EntropyHost;

use super::command::Command;
use super::events::{Wakeup, Wakeups};
use crate::memory::dirty::DirtyPages;
use crate::memory::image::MemoryImage;
use crate::memory::resident;
use crate::snapshot::frozen::{Frozen, no_disk};
use crate::vcpu::exits::Ending;
use crate::vcpu::state::failed;
use crate::vm::plan::Plan;
use crate::vm::shell::{Shell, cannot};

/// A machine with all that it is made of. Lives on one thread.
#[derive(Debug)]
pub(crate) struct Actor {
    pub(super) shell: Shell,
    pub(super) plan: Arc<Plan>,
    /// What to boot; none in a fork.
    pub(super) boot: Option<(BootSource, Guest)>,
    pub(super) status: watch::Sender<Status>,
    pub(super) console: Arc<Console>,
    /// What changed in memory since it was equal to `image`.
    pub(super) dirty: DirtyPages,
    /// The frozen memory that RAM was last equal to; none before the first snapshot.
    pub(super) image: Option<MemoryImage>,
    /// What was above the images of disks then.
    pub(super) overlays: Vec<Overlay>,
    pub(super) snapshots: HashMap<SnapshotId, Arc<Frozen>>,
    /// Counts restores, so that an ending of the life before is told from one of this life.
    pub(super) life: Arc<AtomicU64>,
    pub(super) started: Option<Instant>,
    /// Host-side work that came while the guest was at its end, at most one a device: a waker
    /// stays silent until its device has looked. Served once a restore brings the guest back.
    pub(super) missed: Vec<Wakeup>,
    pub(super) entropy: Option<EntropyHost>,
    pub(super) disks: Vec<BlockHost>,
}

impl Actor {
    /// Serves until the machine is closed or every handle is gone; then frees it. `closed` hears
    /// when all that others could notice is gone.
    pub(crate) fn live(
        mut self,
        inbox: &mpsc::Receiver<Command>,
        mut wakeups: Wakeups,
        closed: &mpsc::SyncSender<()>,
    ) {
        loop {
            let mut flow = ControlFlow::Continue(());
            let waited = wakeups.wait(|wakeup| {
                if flow.is_continue() {
                    flow = self.serve(wakeup, inbox);
                }
            });
            if let Err(error) = waited {
                tracing::error!(%error, "the machine's event loop failed");
                self.crash(format!("the machine's event loop failed: {error}"));
                break;
            }
            if flow.is_break() {
                break;
            }
        }
        self.shell.park();
        self.console.close();
        if !matches!(self.state(), State::Crashed | State::Created) {
            self.set_state(State::Stopped, Some("closed".to_owned()));
        }
        self.snapshots.clear();
        self.image = None;
        self.overlays.clear();
        self.disks.clear();
        let remains = self.shell.dismantle();
        drop(wakeups);
        // Nobody may be waiting.
        let _ = closed.send(());
        // The kernel takes several grace periods to forget a machine with irqfds.
        drop(remains);
    }

    fn serve(&mut self, wakeup: Wakeup, inbox: &mpsc::Receiver<Command>) -> ControlFlow<()> {
        match wakeup {
            Wakeup::Command => return self.serve_commands(inbox),
            // A guest that stopped is not served: its state stays as the last look at it was.
            Wakeup::HostWork(_) if self.has_ended() => self.missed.push(wakeup),
            Wakeup::Kicked(_) if self.has_ended() => {}
            Wakeup::Kicked(device) => self.shell.devices.kicked(device),
            Wakeup::HostWork(device) => self.shell.devices.host_work(device),
        }
        if self.shell.ram.is_broken() && !self.has_ended() {
            self.crash("a device found guest memory gone".to_owned());
        }
        ControlFlow::Continue(())
    }

    fn runs(&self) -> bool {
        matches!(self.state(), State::Running | State::Stopping)
    }

    /// Crashes on purpose: what the guest left in its queues is lost, as with a power failure.
    fn cut_power(&self) -> Result<()> {
        self.state().allows(Operation::Crash)?;
        self.shell.park();
        self.set_state(State::Crashed, Some("crashed on purpose".to_owned()));
        Ok(())
    }

    /// Raises a non-maskable interrupt at the first vCPU.
    fn interrupt(&self) -> Result<()> {
        self.state().allows(Operation::Fault)?;
        self.shell.park();
        let raised = self.shell.vcpus.first().map_or(Ok(()), |vcpu| vcpu.fd().nmi());
        if self.runs() {
            self.shell.run();
        }
        raised.map_err(|error| failed("KVM_NMI", error))
    }

    fn has_ended(&self) -> bool {
        matches!(self.state(), State::Stopped | State::Crashed)
    }

    /// Serves what came from the host's side while the guest was at its end.
    pub(super) fn catch_up(&mut self) {
        for wakeup in std::mem::take(&mut self.missed) {
            if let Wakeup::HostWork(device) = wakeup {
                self.shell.devices.host_work(device);
            }
        }
    }

    fn serve_commands(&mut self, inbox: &mpsc::Receiver<Command>) -> ControlFlow<()> {
        loop {
            match inbox.try_recv() {
                Ok(Command::Close) | Err(mpsc::TryRecvError::Disconnected) => {
                    return ControlFlow::Break(());
                }
                Ok(command) => self.obey(command),
                Err(mpsc::TryRecvError::Empty) => return ControlFlow::Continue(()),
            }
        }
    }

    /// Carries out one command. A caller that has gone away does not want its answer.
    fn obey(&mut self, command: Command) {
        match command {
            Command::Start(reply) => drop(reply.send(self.start())),
            Command::Pause(reply) => drop(reply.send(self.pause())),
            Command::Resume(reply) => drop(reply.send(self.resume())),
            Command::PressPowerButton(reply) => {
                let pressed = self.shell.bus.ports.press_power_button();
                drop(reply.send(pressed.map_err(|error| cannot("press the power button", error))));
            }
            Command::BeginStop(reply) => drop(reply.send(self.begin_stop())),
            Command::Kill(reply) => {
                self.kill();
                drop(reply.send(Ok(())));
            }
            Command::Snapshot(id, reply) => drop(reply.send(self.snapshot(id))),
            Command::Restore(id, options, reply) => drop(reply.send(self.restore(id, options))),
            Command::Forget(id, reply) => {
                self.snapshots.remove(&id);
                drop(reply.send(Ok(())));
            }
            Command::TypeSerial(bytes, reply) => {
                drop(reply.send(Ok(self.shell.bus.ports.type_input(&bytes))));
            }
            Command::Resident(reply) => drop(reply.send(self.resident())),
            Command::Info(reply) => drop(reply.send(self.info())),
            Command::Crash(reply) => drop(reply.send(self.cut_power())),
            Command::Nmi(reply) => drop(reply.send(self.interrupt())),
            Command::HoldVcpus(reply) => {
                if self.runs() {
                    self.shell.run();
                }
                drop(reply.send(Ok(())));
            }
            Command::Disk(index, reply) => drop(reply.send(self.disk(index))),
            Command::Ended(life, ending) if life == self.life.load(Ordering::SeqCst) => {
                self.ended(ending);
            }
            Command::Ended(..) | Command::Close => {}
        }
    }

    pub(super) fn state(&self) -> State {
        self.status.borrow().state
    }

    pub(super) fn set_state(&self, state: State, reason: Option<String>) {
        tracing::debug!(%state, reason = reason.as_deref().unwrap_or_default(), "state");
        self.status.send_replace(Status { state, reason });
    }

    fn pause(&self) -> Result<()> {
        self.state().allows(Operation::Pause)?;
        self.shell.park();
        self.set_state(State::Paused, None);
        Ok(())
    }

    fn resume(&self) -> Result<()> {
        self.state().allows(Operation::Resume)?;
        self.shell.run();
        self.set_state(State::Running, None);
        Ok(())
    }

    fn begin_stop(&self) -> Result<()> {
        self.state().allows(Operation::Stop)?;
        self.shell.run();
        self.set_state(State::Stopping, None);
        Ok(())
    }

    fn kill(&mut self) {
        if self.state().allows(Operation::Kill).is_ok() {
            self.shell.park();
            self.set_state(State::Stopped, Some("killed".to_owned()));
        }
    }

    fn ended(&mut self, ending: Ending) {
        match ending {
            Ending::PowerOff => self.stopped("the guest powered off"),
            Ending::Reset => self.stopped("the guest asked for a reset"),
            Ending::Crash(reason) => self.crash(reason),
        }
    }

    fn stopped(&mut self, reason: &str) {
        self.shell.park();
        self.shell.devices.drain();
        self.set_state(State::Stopped, Some(reason.to_owned()));
    }

    pub(super) fn crash(&mut self, reason: String) {
        self.shell.park();
        self.shell.devices.drain();
        let changed = self.image.as_ref().and_then(|image| image.base().check().err());
        let reason = match changed {
            Some(error) => format!("{reason}: {}", error.message()),
            None => reason,
        };
        self.set_state(State::Crashed, Some(reason));
    }

    fn resident(&self) -> Result<Bytes> {
        resident::resident(&self.shell.ram.host_range())
            .map_err(|error| cannot("read /proc/self/smaps", error))
    }

    /// A disk between two requests: this thread serves them.
    fn disk(&self, index: usize) -> Result<Arc<dyn DiskContents>> {
        let states = self.shell.devices.save_blocks();
        match (self.disks.get(index), states.get(index)) {
            (Some(disk), Some(state)) => disk.contents(state),
            _ => Err(no_disk(index)),
        }
    }

    fn info(&mut self) -> Result<MachineInfo> {
        let running = self.runs();
        self.shell.park();
        let collected = self.dirty.collect(&self.shell.vm, &self.shell.ram);
        let dirty_pages = self.dirty.count() as u64;
        self.dirty.put_back();
        if running {
            self.shell.run();
        }
        collected.map_err(|error| cannot("read the dirty log", error.into()))?;
        Ok(MachineInfo {
            uptime: self.started.map(|started| started.elapsed()).unwrap_or_default(),
            host_rss: self.resident()?,
            dirty_pages,
            devices: self.shell.devices.describe(),
        })
    }
}
