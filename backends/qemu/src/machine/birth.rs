//! How a machine's thread comes to life.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, mpsc};

use tokio::sync::{oneshot, watch};
use vmm_sys_util::eventfd::EventFd;
use vmoon_core::backend::Status;
use vmoon_core::spec::Identity;
use vmoon_core::vsock::VsockStream;
use vmoon_core::{BootSource, Bytes, Console, Result, State};
use vmoon_virtio::HostWaker;
use vmoon_virtio::block::Disk;
use vmoon_virtio::entropy::EntropyHost;
use vmoon_virtio::vsock::VsockHost;

use super::actor::Actor;
use super::balloon::Balloon;
use super::command::{Command, Mailbox};
use super::handle::QemuMachine;
use super::monitor::Inbox;
use crate::error::cannot;
use crate::memory::Ram;
use crate::plan::Plan;
use crate::process::program::Program;
use crate::serve::Served;
use crate::snapshot::Frozen;
use crate::vhost::Vhost;

/// Where a machine's first state comes from.
#[derive(Debug)]
pub(crate) enum Origin {
    /// It will boot.
    Boot(Box<BootSource>),
    /// It goes on from a snapshot, paused; with the same entropy each time if that is asked.
    Snapshot(Arc<Frozen>, bool),
}

/// Makes a machine: in state `created`, or paused where a snapshot ends. The connections are those
/// that live on from the snapshot.
pub(crate) async fn bear(
    plan: Arc<Plan>,
    origin: Origin,
    identity: &Identity,
) -> Result<(QemuMachine, Vec<VsockStream>)> {
    let program = Program::get()?;
    let (sender, arrivals) = mpsc::channel();
    let mailbox = Mailbox(sender);
    let (state, cid) = match &origin {
        Origin::Boot(_) => (State::Created, identity.cid),
        // The guest knows itself by that number, and its connections live on.
        Origin::Snapshot(frozen, _) => (State::Paused, frozen.state.cid),
    };
    let (status, watched) = watch::channel(Status { state, reason: None });
    let memory = usize::try_from(plan.memory).expect("checked against the host's memory");
    let ram = Ram::new(memory).map_err(|error| cannot("map the machine's memory", error))?;
    let ram = Arc::new(ram);
    let host_work = Arc::new(
        EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
            .map_err(|error| cannot("make an event", error))?,
    );
    let vhost = plan.vsock.then(|| {
        let host_work = host_work.clone();
        // A full counter wakes the thread as well.
        let waker = HostWaker::new(move || drop(host_work.write(1)));
        Vhost::new(cid, ram.clone(), waker)
    });
    let vsock = vhost.as_ref().map(Vhost::host);
    let open = |spec| {
        let disk = Disk::open(spec)?;
        disk.host().hold()?;
        Ok(Mutex::new(disk))
    };
    let disks = plan.disks.iter().map(open);
    let served = Served {
        vhost: vhost.map(|vhost| Arc::new(Mutex::new(vhost))),
        host_work,
        disks: disks.collect::<Result<Vec<_>>>()?.into(),
        entropy: EntropyHost::default(),
        console: Arc::new(Console::new()),
    };
    let balloon = Balloon::new(Bytes(plan.memory));
    let level = plan.balloon.then(|| balloon.watch());
    let console = served.console.clone();
    let (boot, frozen) = match origin {
        Origin::Boot(source) => (Some(*source), None),
        Origin::Snapshot(frozen, deterministic) => (None, Some((frozen, deterministic))),
    };
    let actor = Actor {
        qemu: None,
        processes: 0,
        program,
        plan,
        cid,
        ram,
        served,
        boot,
        reset_writes: false,
        status,
        balloon,
        image: None,
        overlays: Vec::new(),
        snapshots: HashMap::new(),
        nodes: HashMap::new(),
        nodes_made: 0,
        mailbox: mailbox.clone(),
        inbox: Inbox::new(arrivals),
        started: None,
    };
    let (born, told) = oneshot::channel();
    let (closed, closing) = mpsc::sync_channel(1);
    // QEMU dies with the thread that started it: that is this one, also in a fork.
    std::thread::Builder::new()
        .name("machine".to_owned())
        .spawn(move || begin(actor, frozen, born, &closed))
        .map_err(|error| cannot("start the machine's thread", error))?;
    let machine = QemuMachine {
        mailbox,
        status: watched,
        console,
        vsock: vsock.clone(),
        balloon: level,
        closing: Mutex::new(Some(closing)),
    };
    // Dropped while it waits, or on an error, the machine closes.
    let lost = || cannot("start the machine", std::io::ErrorKind::BrokenPipe.into());
    told.await.unwrap_or_else(|_| Err(lost()))?;
    let connections = vsock.as_ref().map(VsockHost::take_inherited).unwrap_or_default();
    Ok((machine, connections))
}

fn begin(
    mut actor: Actor,
    frozen: Option<(Arc<Frozen>, bool)>,
    born: oneshot::Sender<Result<()>>,
    closed: &mpsc::SyncSender<()>,
) {
    let outcome = match frozen {
        Some((frozen, deterministic)) => actor.wake_up_in(frozen, deterministic),
        None => Ok(()),
    };
    if let Err(error) = &outcome {
        tracing::debug!(%error, "a machine was not born");
        actor.mailbox.send(Command::Close);
    }
    // When nobody waits for the machine any more, its mailbox says so.
    let _ = born.send(outcome);
    actor.live(closed);
}
