//! What a machine's thread can be asked to do.

use std::sync::{Arc, mpsc};

use tokio::sync::oneshot;
use vmm_sys_util::eventfd::EventFd;
use vmoon_core::backend::{MachineInfo, RestoreOptions, RestoreReport, SnapshotImage};
use vmoon_core::disk::DiskContents;
use vmoon_core::{Bytes, Result, SnapshotId, refusal};

use crate::vcpu::exits::Ending;

/// Where the answer goes. Nobody may be waiting any more: then it is dropped.
pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

/// A request and where its answer goes.
#[derive(Debug)]
#[allow(missing_docs, reason = "each is the method of the same name of `vmoon_core::Machine`")]
pub(crate) enum Command {
    Start(Reply<()>),
    Pause(Reply<()>),
    Resume(Reply<()>),
    PressPowerButton(Reply<()>),
    BeginStop(Reply<()>),
    Kill(Reply<()>),
    Snapshot(SnapshotId, Reply<Arc<dyn SnapshotImage>>),
    Restore(SnapshotId, RestoreOptions, Reply<RestoreReport>),
    Forget(SnapshotId, Reply<()>),
    TypeSerial(Vec<u8>, Reply<usize>),
    Resident(Reply<Bytes>),
    Info(Reply<MachineInfo>),
    Crash(Reply<()>),
    Nmi(Reply<()>),
    /// Parks the vCPUs that are held and lets the others run, where the machine runs.
    HoldVcpus(Reply<()>),
    Disk(usize, Reply<Arc<dyn DiskContents>>),
    /// A vCPU stopped running guest code, in the life of this number.
    Ended(u64, Ending),
    /// Frees everything and ends the thread.
    Close,
}

/// The sending end of a machine's mailbox.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    commands: mpsc::Sender<Command>,
    wake: Arc<EventFd>,
}

impl Mailbox {
    /// A mailbox, its receiving end and the event that says that something is in it.
    pub(crate) fn new() -> std::io::Result<(Self, mpsc::Receiver<Command>, Arc<EventFd>)> {
        let (commands, inbox) = mpsc::channel();
        let wake = Arc::new(EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?);
        Ok((Self { commands, wake: wake.clone() }, inbox, wake))
    }

    /// Puts a command in; false when the machine is gone.
    pub(crate) fn send(&self, command: Command) -> bool {
        let sent = self.commands.send(command).is_ok();
        // It fails only when the counter is full, and then the thread is awake.
        let _ = self.wake.write(1);
        sent
    }

    /// Asks and waits for the answer.
    pub(crate) async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        if !self.send(command(reply)) {
            return Err(refusal::closed());
        }
        answer.await.unwrap_or_else(|_| Err(refusal::closed()))
    }
}
