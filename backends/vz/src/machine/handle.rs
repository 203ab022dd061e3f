//! The handle to a machine that others hold.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

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
use vmoon_core::{Bytes, Code, Console, Error, Machine, Result, SnapshotId, VsockPort, refusal};

use super::command::{Command, Mailbox};
use crate::host::NO_FAULTS;
use crate::plan::Plan;
use crate::vsock::hub::Hub;

/// How long closing may take: the framework may be at work, and has its own deadlines.
const CLOSING: Duration = Duration::from_secs(20);

/// A machine of the framework. Dropping it closes the machine.
#[derive(Debug)]
pub(crate) struct VzMachine {
    mailbox: Mailbox,
    status: watch::Receiver<Status>,
    console: Arc<Console>,
    hub: Arc<Hub>,
    plan: Arc<Plan>,
    /// Says when the machine's thread has freed it; taken by the first to close it.
    closing: Mutex<Option<mpsc::Receiver<()>>>,
}

impl VzMachine {
    pub(super) fn new(
        mailbox: Mailbox,
        status: watch::Receiver<Status>,
        console: Arc<Console>,
        hub: Arc<Hub>,
        plan: Arc<Plan>,
        closing: mpsc::Receiver<()>,
    ) -> Self {
        Self { mailbox, status, console, hub, plan, closing: Mutex::new(Some(closing)) }
    }
}

/// What only the guest knows of its balloon, and the framework does not pass on.
fn untold(what: &str) -> Error {
    Error::new(Code::BackendUnsupported, format!("vz does not tell {what}"))
        .with_hint("read /proc/meminfo in the guest")
        .with_detail("backend", "vz")
        .with_detail("feature", "balloon")
}

#[async_trait]
impl Machine for VzMachine {
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
            && closing.recv_timeout(CLOSING) == Err(mpsc::RecvTimeoutError::Timeout)
        {
            tracing::error!("the machine's thread did not end");
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
        refusal::check_device(self.plan.vsock, "vsock")?;
        Ok(Box::new(self.hub.connect(port).await?))
    }

    async fn listen(&self, port: VsockPort) -> Result<Box<dyn VsockListener>> {
        refusal::check_device(self.plan.vsock, "vsock")?;
        self.hub.listen(port)
    }

    fn console(&self) -> &Arc<Console> {
        &self.console
    }

    async fn type_console(&self, bytes: Vec<u8>) -> Result<()> {
        let all = bytes.len();
        let taken = self.mailbox.ask(|reply| Command::Type(bytes, reply)).await?;
        refusal::check_typed(taken, all)
    }

    async fn set_balloon(&self, target: Bytes) -> Result<()> {
        refusal::check_device(self.plan.balloon, "balloon")?;
        self.mailbox.ask(|reply| Command::SetBalloon(target, reply)).await
    }

    async fn balloon(&self) -> Result<watch::Receiver<BalloonLevel>> {
        refusal::check_device(self.plan.balloon, "balloon")?;
        Err(untold("how much memory its balloon has left to the guest"))
    }

    async fn balloon_statistics(&self) -> Result<BalloonStatistics> {
        refusal::check_device(self.plan.balloon, "balloon")?;
        Err(untold("the guest's memory statistics"))
    }

    async fn disk(&self, index: usize) -> Result<Arc<dyn DiskContents>> {
        self.mailbox.ask(|reply| Command::Disk(index, reply)).await
    }

    fn faults(&self) -> Result<&dyn FaultInjection> {
        Err(refusal::no_faults("vz", &NO_FAULTS))
    }

    async fn info(&self) -> Result<MachineInfo> {
        self.mailbox.ask(Command::Info).await
    }
}

impl Drop for VzMachine {
    fn drop(&mut self) {
        self.close();
    }
}
