//! The handle to a machine that others hold.

use std::sync::{Arc, Mutex, PoisonError, mpsc};

use async_trait::async_trait;
use tokio::sync::watch;
use vmoon_core::backend::{
    BalloonLevel, BalloonStatistics, MachineInfo, RestoreOptions, RestoreReport, SnapshotImage,
    Status,
};
use vmoon_core::disk::DiskContents;
use vmoon_core::faults::FaultInjection;
use vmoon_core::lifecycle::Operation;
use vmoon_core::vsock::{VsockListener, VsockStream};
use vmoon_core::{Bytes, Console, Machine, Result, SnapshotId, VsockPort, refusal};
use vmoon_virtio::vsock::VsockHost;

use super::command::{Command, Mailbox};
use crate::backend::NO_FAULTS;

/// A machine in QEMU. Dropping it closes the machine.
#[derive(Debug)]
pub(crate) struct QemuMachine {
    pub(super) mailbox: Mailbox,
    pub(super) status: watch::Receiver<Status>,
    pub(super) console: Arc<Console>,
    pub(super) vsock: Option<VsockHost>,
    pub(super) balloon: Option<watch::Receiver<BalloonLevel>>,
    /// Says when the machine's thread has freed it; taken by the first to close it.
    pub(super) closing: Mutex<Option<mpsc::Receiver<()>>>,
}

impl QemuMachine {
    fn vsock(&self) -> Result<&VsockHost> {
        self.vsock.as_ref().ok_or_else(|| refusal::absent_device("vsock"))
    }

    fn level(&self) -> Result<&watch::Receiver<BalloonLevel>> {
        self.balloon.as_ref().ok_or_else(|| refusal::absent_device("balloon"))
    }
}

#[async_trait]
impl Machine for QemuMachine {
    fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    async fn start(&self) -> Result<()> {
        self.mailbox.ask(Command::Start).await
    }

    async fn pause(&self) -> Result<()> {
        self.mailbox.ask(Command::Pause).await
    }

    async fn resume(&self) -> Result<()> {
        self.mailbox.ask(Command::Resume).await
    }

    async fn press_power_button(&self) -> Result<()> {
        self.mailbox.ask(Command::PressPowerButton).await
    }

    async fn begin_stop(&self) -> Result<()> {
        self.mailbox.ask(Command::BeginStop).await
    }

    async fn kill(&self) -> Result<()> {
        self.mailbox.ask(Command::Kill).await
    }

    fn close(&self) {
        let closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(closing) = closing
            && self.mailbox.send(Command::Close)
            && closing.recv().is_err()
        {
            tracing::error!("the machine's thread died");
        }
    }

    async fn snapshot(&self, id: SnapshotId) -> Result<Arc<dyn SnapshotImage>> {
        self.mailbox.ask(|reply| Command::Snapshot(id, reply)).await
    }

    async fn restore(&self, id: SnapshotId, options: RestoreOptions) -> Result<RestoreReport> {
        self.mailbox.ask(|reply| Command::Restore(id, options, reply)).await
    }

    async fn forget(&self, id: SnapshotId) -> Result<()> {
        self.mailbox.ask(|reply| Command::Forget(id, reply)).await
    }

    async fn connect(&self, port: VsockPort) -> Result<VsockStream> {
        self.status.borrow().state.allows(Operation::Connect)?;
        self.vsock()?.connect(port).await
    }

    async fn listen(&self, port: VsockPort) -> Result<Box<dyn VsockListener>> {
        self.vsock()?.listen(port)
    }

    fn console(&self) -> &Arc<Console> {
        &self.console
    }

    async fn type_console(&self, bytes: Vec<u8>) -> Result<()> {
        let length = bytes.len();
        let taken = self.mailbox.ask(|reply| Command::Type(bytes, reply)).await?;
        refusal::check_typed(taken, length)
    }

    async fn set_balloon(&self, target: Bytes) -> Result<()> {
        self.status.borrow().state.allows(Operation::Balloon)?;
        self.level()?;
        self.mailbox.ask(|reply| Command::SetBalloon(target, reply)).await
    }

    async fn balloon(&self) -> Result<watch::Receiver<BalloonLevel>> {
        self.level().cloned()
    }

    async fn balloon_statistics(&self) -> Result<BalloonStatistics> {
        self.status.borrow().state.allows(Operation::Connect)?;
        self.level()?;
        self.mailbox.ask(Command::BalloonStatistics).await
    }

    async fn disk(&self, index: usize) -> Result<Arc<dyn DiskContents>> {
        self.mailbox.ask(|reply| Command::Disk(index, reply)).await
    }

    fn faults(&self) -> Result<&dyn FaultInjection> {
        Err(refusal::no_faults("qemu", &NO_FAULTS))
    }

    async fn info(&self) -> Result<MachineInfo> {
        self.mailbox.ask(Command::Info).await
    }
}

impl Drop for QemuMachine {
    fn drop(&mut self) {
        self.close();
    }
}
