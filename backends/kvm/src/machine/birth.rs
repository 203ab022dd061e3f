//! How a machine's thread comes to life.
//!
//! In two steps: the thread makes everything that KVM needs time for and that is the same for all
//! machines of a plan, and then waits to hear which machine it is. So forks find machines that
//! wait for them (see [`super::spare`]).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use tokio::sync::{oneshot, watch};
use vmm_sys_util::eventfd::EventFd;
use vmoon_core::backend::{RestoreOptions, Status};
use vmoon_core::spec::{Guest, Identity};
use vmoon_core::vsock::VsockStream;
use vmoon_core::{BootSource, Cid, Console, Result, State};
use vmoon_virtio::RestoreMode;
use vmoon_virtio::block::BlockHost;
use vmoon_virtio::vsock::VsockHost;

use super::actor::Actor;
use super::command::{Command, Mailbox};
use super::events::{Wakeup, Wakeups};
use super::faults::KvmFaults;
use super::handle::KvmMachine;
use crate::memory::dirty::DirtyPages;
use crate::memory::ram::Ram;
use crate::snapshot::frozen::Frozen;
use crate::vcpu::holds::Holds;
use crate::vcpu::thread::OnEnding;
use crate::vm::build::{self, Hosts};
use crate::vm::plan::Plan;
use crate::vm::shell::{Shell, cannot};

/// Where a machine's first state comes from.
#[derive(Debug)]
pub(crate) enum Origin {
    /// It will boot.
    Boot(Box<BootSource>, Guest),
    /// It goes on from a snapshot, paused.
    Snapshot(Arc<Frozen>, RestoreOptions),
}

/// A machine that does not know yet which it is. Dropping it frees it.
#[derive(Debug)]
pub(crate) struct Unborn {
    destiny: mpsc::SyncSender<Destiny>,
    mailbox: Mailbox,
    status: watch::Receiver<Status>,
    console: Arc<Console>,
    closing: mpsc::Receiver<()>,
}

/// Which machine it shall be, and who wants to hear when it is.
struct Destiny {
    plan: Arc<Plan>,
    origin: Origin,
    cid: Cid,
    born: oneshot::Sender<Result<Born>>,
}

/// What the thread tells of the machine that it made.
struct Born {
    hosts: Hosts,
    connections: Vec<VsockStream>,
    holds: Holds,
}

impl Unborn {
    /// Starts a thread that makes a machine: with memory of its own if it shall boot, with
    /// addresses only if its memory will come from a snapshot.
    pub(crate) fn conceive(plan: &Arc<Plan>, boots: bool) -> Result<Self> {
        let (mailbox, inbox, wake) =
            Mailbox::new().map_err(|error| cannot("make a mailbox", error))?;
        let state = if boots { State::Created } else { State::Paused };
        let (status, watched) = watch::channel(Status { state, reason: None });
        let console = Arc::new(Console::new());
        let womb = Womb {
            plan: plan.clone(),
            boots,
            mailbox: mailbox.clone(),
            status,
            console: console.clone(),
        };
        let (destiny, fate) = mpsc::sync_channel(1);
        let (closed, closing) = mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("machine".to_owned())
            .spawn(move || womb.live(&inbox, &wake, &fate, &closed))
            .map_err(|error| cannot("start the machine's thread", error))?;
        Ok(Self { destiny, mailbox, status: watched, console, closing })
    }

    /// Makes it the machine of this identity. The connections are those that live on from the
    /// snapshot.
    pub(crate) async fn bear(
        self,
        plan: Arc<Plan>,
        origin: Origin,
        identity: &Identity,
    ) -> Result<(KvmMachine, Vec<VsockStream>)> {
        let lost = || cannot("start the machine", std::io::ErrorKind::BrokenPipe.into());
        let (born, told) = oneshot::channel();
        let types_virtio = plan.types_virtio;
        let destiny = Destiny { plan, origin, cid: identity.cid, born };
        self.destiny.send(destiny).map_err(|_| lost())?;
        let unclaimed = Unclaimed(&self.mailbox);
        let Born { hosts, connections, holds } = told.await.unwrap_or_else(|_| Err(lost()))?;
        std::mem::forget(unclaimed);
        let faults = KvmFaults {
            mailbox: self.mailbox.clone(),
            disks: hosts.disk_faults,
            vsock: hosts.vsock_faults,
            holds,
        };
        let machine = KvmMachine {
            mailbox: self.mailbox,
            faults,
            status: self.status,
            console: self.console,
            vsock: hosts.vsock,
            balloon: hosts.balloon,
            virtio_console: hosts.console.filter(|_| types_virtio),
            closing: Mutex::new(Some(self.closing)),
        };
        Ok((machine, connections))
    }
}

/// Closes the machine if nobody waits for it any more when it is made.
struct Unclaimed<'a>(&'a Mailbox);

impl Drop for Unclaimed<'_> {
    fn drop(&mut self) {
        self.0.send(Command::Close);
    }
}

/// What a new thread needs to make its machine.
struct Womb {
    plan: Arc<Plan>,
    boots: bool,
    mailbox: Mailbox,
    status: watch::Sender<Status>,
    console: Arc<Console>,
}

/// What is the same for all machines of a plan. It does not hold the plan, which holds those that
/// wait.
struct Made {
    shell: Shell,
    wakeups: Wakeups,
    hosts: Hosts,
    life: Arc<AtomicU64>,
    status: watch::Sender<Status>,
    console: Arc<Console>,
}

impl Womb {
    /// Makes the machine, hears which it is, and lives its life.
    fn live(
        self,
        inbox: &mpsc::Receiver<Command>,
        wake: &EventFd,
        fate: &mpsc::Receiver<Destiny>,
        closed: &mpsc::SyncSender<()>,
    ) {
        let made = self.make(wake);
        // Nobody wanted it: it goes as it came.
        let Ok(Destiny { plan, origin, cid, born }) = fate.recv() else { return };
        match made.and_then(|made| made.become_machine(plan, origin, cid)) {
            Ok((actor, wakeups, told)) => {
                // When nobody waits for the machine any more, its mailbox says so.
                let _ = born.send(Ok(told));
                actor.live(inbox, wakeups, closed);
            }
            Err(error) => drop(born.send(Err(error))),
        }
    }

    fn make(self, wake: &EventFd) -> Result<Made> {
        let life = Arc::new(AtomicU64::new(0));
        let on_ending: OnEnding = Arc::new({
            let (mailbox, life) = (self.mailbox, life.clone());
            move |_, ending| {
                mailbox.send(Command::Ended(life.load(Ordering::SeqCst), ending));
            }
        });
        let plan = self.plan;
        let ram = if self.boots { Ram::new(plan.memory) } else { Ram::reserve(plan.memory) }
            .map_err(|error| cannot("map the machine's memory", error.into()))?;
        let mut hosts = None;
        let shell = Shell::new(
            &plan,
            ram,
            |vm, ram| {
                let built = build::devices(&plan, vm, ram, &self.console)?;
                hosts = Some(built.hosts);
                Ok((built.devices, built.bus))
            },
            &on_ending,
        )?;
        let hosts = hosts.expect("the devices were made");
        let wakeups = Wakeups::new().map_err(|error| cannot("make an event loop", error))?;
        wakeups
            .add(wake, Wakeup::Command)
            .and_then(|()| shell.devices.watch(&wakeups))
            .map_err(|error| cannot("watch the machine's events", error))?;
        let (status, console) = (self.status, self.console);
        Ok(Made { shell, wakeups, hosts, life, status, console })
    }
}

impl Made {
    /// Takes on the first state.
    fn become_machine(
        self,
        plan: Arc<Plan>,
        origin: Origin,
        cid: Cid,
    ) -> Result<(Actor, Wakeups, Born)> {
        let Self { shell, wakeups, mut hosts, life, status, console } = self;
        // Not before: machines that wait hold nobody's images.
        hosts.disks.iter().try_for_each(BlockHost::hold)?;
        if let Some(vsock) = &hosts.vsock {
            vsock.set_cid(cid);
        }
        let holds = shell.holds.clone();
        let mut actor = Actor {
            dirty: DirtyPages::new(shell.ram.pages()),
            shell,
            plan,
            boot: None,
            status,
            console,
            image: None,
            overlays: Vec::new(),
            snapshots: HashMap::new(),
            life,
            started: None,
            missed: Vec::new(),
            entropy: hosts.entropy.clone(),
            disks: std::mem::take(&mut hosts.disks),
        };
        match origin {
            Origin::Boot(source, guest) => actor.boot = Some((*source, guest)),
            Origin::Snapshot(frozen, options) => actor.wake_up_in(frozen, options)?,
        }
        let connections = hosts.vsock.as_ref().map(VsockHost::take_inherited).unwrap_or_default();
        Ok((actor, wakeups, Born { hosts, connections, holds }))
    }
}

impl Actor {
    /// Takes on the state of a snapshot, for the first time.
    fn wake_up_in(&mut self, frozen: Arc<Frozen>, options: RestoreOptions) -> Result<()> {
        self.shell.restore_state(&frozen, RestoreMode::Fresh, || {
            // SAFETY: the vCPUs have never run, and this thread alone drives the devices.
            unsafe { frozen.memory.fill(&self.shell.ram) }
                .map_err(|error| cannot("map the machine's memory", error.into()))
        })?;
        self.draw_entropy(frozen.id, options);
        self.image = Some(frozen.memory.clone());
        self.overlays = frozen.state.overlays();
        self.snapshots.insert(frozen.id, frozen);
        Ok(())
    }
}
