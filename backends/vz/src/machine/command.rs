//! What a machine's thread can be asked to do.

use std::sync::{Arc, mpsc};

use tokio::sync::oneshot;
use vmoon_core::backend::{MachineInfo, RestoreOptions, RestoreReport, SnapshotImage};
use vmoon_core::disk::DiskContents;
use vmoon_core::{Bytes, Result, SnapshotId, refusal};

use crate::framework::Ended;

/// Where the answer goes. Nobody may be waiting any more: then it is dropped.
pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

/// A request and where its answer goes.
#[derive(Debug)]
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
    Type(Vec<u8>, Reply<usize>),
    SetBalloon(Bytes, Reply<()>),
    Disk(usize, Reply<Arc<dyn DiskContents>>),
    Info(Reply<MachineInfo>),
    /// The machine of this life ended by itself.
    Ended(u64, Ended),
    /// The guest said so on its console.
    Panicked(String),
    /// Frees everything and ends the thread.
    Close,
}

/// The sending end of a machine's mailbox.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox(pub(super) mpsc::Sender<Command>);

impl Mailbox {
    /// Puts a command in; false when the machine is gone.
    pub(crate) fn send(&self, command: Command) -> bool {
        self.0.send(command).is_ok()
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
