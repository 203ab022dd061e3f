//! How a machine's thread comes to life.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use tokio::sync::{oneshot, watch};
use vmm_sys_util::eventfd::EventFd;
use vmoon_core::backend::Status;
use vmoon_core::spec::{Guest, Identity};
use vmoon_core::vsock::VsockStream;
use vmoon_core::{BootSource, Console, Result, State};
use vmoon_virtio::RestoreMode;
use vmoon_virtio::vsock::VsockHost;

use super::actor::Actor;
use super::command::{Command, Mailbox};
use super::events::{Wakeup, Wakeups};
use super::handle::KvmMachine;
use crate::memory::dirty::DirtyPages;
use crate::memory::ram::Ram;
use crate::snapshot::frozen::Frozen;
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
    Snapshot(Arc<Frozen>),
}

/// What the thread tells of the machine that it made.
struct Born {
    hosts: Hosts,
    connections: Vec<VsockStream>,
}

/// Makes a machine on a thread of its own. The connections are those that live on from the
/// snapshot.
pub(crate) async fn bear(
    plan: Arc<Plan>,
    origin: Origin,
    identity: &Identity,
) -> Result<(KvmMachine, Vec<VsockStream>)> {
    let (mailbox, inbox, wake) = Mailbox::new().map_err(|error| cannot("make a mailbox", error))?;
    let state = match &origin {
        Origin::Boot(..) => State::Created,
        Origin::Snapshot(_) => State::Paused,
    };
    let types_virtio = plan.types_virtio;
    let (status, watched) = watch::channel(Status { state, reason: None });
    let console = Arc::new(Console::new());
    let (born, told) = oneshot::channel();
    let cradle = Cradle {
        plan,
        origin,
        cid: identity.cid,
        mailbox: mailbox.clone(),
        status,
        console: console.clone(),
    };
    let (closed, closing) = mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name(format!("vm-{}", identity.name))
        .spawn(move || cradle.rock(&inbox, &wake, born, &closed))
        .map_err(|error| cannot("start the machine's thread", error))?;
    let unclaimed = Unclaimed(&mailbox);
    let Ok(told) = told.await else {
        return Err(cannot("start the machine", std::io::ErrorKind::Other.into()));
    };
    let Born { hosts, connections } = told?;
    std::mem::forget(unclaimed);
    let machine = KvmMachine {
        mailbox,
        status: watched,
        console,
        vsock: hosts.vsock,
        balloon: hosts.balloon,
        virtio_console: hosts.console.filter(|_| types_virtio),
        closing: Mutex::new(Some(closing)),
    };
    Ok((machine, connections))
}

/// Closes the machine if nobody waits for it any more when it is made.
struct Unclaimed<'a>(&'a Mailbox);

impl Drop for Unclaimed<'_> {
    fn drop(&mut self) {
        self.0.send(Command::Close);
    }
}

/// What a new thread needs to make its machine.
struct Cradle {
    plan: Arc<Plan>,
    origin: Origin,
    cid: vmoon_core::Cid,
    mailbox: Mailbox,
    status: watch::Sender<Status>,
    console: Arc<Console>,
}

impl Cradle {
    /// Makes the machine, tells of it, and lives its life.
    fn rock(
        self,
        inbox: &mpsc::Receiver<Command>,
        wake: &EventFd,
        born: oneshot::Sender<Result<Born>>,
        closed: &mpsc::SyncSender<()>,
    ) {
        match self.make(wake) {
            Ok((actor, wakeups, told)) => {
                // When nobody waits for the machine any more, its mailbox is gone too.
                if born.send(Ok(told)).is_ok() {
                    actor.live(inbox, wakeups, closed);
                }
            }
            Err(error) => drop(born.send(Err(error))),
        }
    }

    fn make(self, wake: &EventFd) -> Result<(Actor, Wakeups, Born)> {
        let life = Arc::new(AtomicU64::new(0));
        let on_ending: OnEnding = Arc::new({
            let (mailbox, life) = (self.mailbox, life.clone());
            move |_, ending| {
                mailbox.send(Command::Ended(life.load(Ordering::SeqCst), ending));
            }
        });
        let plan = self.plan;
        let ram = match &self.origin {
            Origin::Boot(..) => Ram::new(plan.memory),
            Origin::Snapshot(frozen) => frozen.memory.fork(),
        }
        .map_err(|error| cannot("map the machine's memory", error.into()))?;
        let pages = ram.pages();
        let mut hosts = None;
        let shell = Shell::new(
            &plan,
            ram,
            |vm, ram| {
                let built = build::devices(&plan, vm, ram, self.cid, &self.console)?;
                hosts = Some(built.hosts);
                Ok((built.devices, built.bus))
            },
            &on_ending,
        )?;
        let hosts = hosts.expect("the devices were made");
        let mut connections = Vec::new();
        let mut snapshots = HashMap::new();
        let mut image = None;
        let boot = match self.origin {
            Origin::Boot(source, guest) => Some((*source, guest)),
            Origin::Snapshot(frozen) => {
                shell.restore_state(&frozen, RestoreMode::Fresh, || Ok(()))?;
                connections =
                    hosts.vsock.as_ref().map(VsockHost::take_inherited).unwrap_or_default();
                image = Some(frozen.memory.clone());
                snapshots.insert(frozen.id, frozen);
                None
            }
        };
        let wakeups = Wakeups::new().map_err(|error| cannot("make an event loop", error))?;
        wakeups
            .add(wake, Wakeup::Command)
            .and_then(|()| shell.devices.watch(&wakeups))
            .map_err(|error| cannot("watch the machine's events", error))?;
        let actor = Actor {
            shell,
            plan,
            boot,
            status: self.status,
            console: self.console,
            dirty: DirtyPages::new(pages),
            image,
            snapshots,
            life,
            started: None,
            missed: Vec::new(),
            entropy: hosts.entropy.clone(),
        };
        Ok((actor, wakeups, Born { hosts, connections }))
    }
}
