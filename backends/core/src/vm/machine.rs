//! A machine: identity, state and life cycle.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::host::{Host, Leases};
use super::transcript::Transcript;
use super::tree::{Origin, Tree};
use crate::agent::AgentClient;
use crate::backend::{Backend, Machine, MachineInfo, Status};
use crate::console::Console;
use crate::error::{Code, Error, Result};
use crate::lifecycle::{Operation, State};
use crate::spec::{Identity, MachineSpec};
use crate::units::{Cid, MachineId};

/// A machine as scripts see it.
///
/// The host knows it only weakly: dropping the last handle closes it.
#[derive(Debug)]
pub struct Vm {
    pub(super) host: Arc<Host>,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) spec: Arc<MachineSpec>,
    pub(super) machine: Arc<dyn Machine>,
    pub(super) agent: Option<AgentClient>,
    /// The snapshots; locked while one is taken, restored or deleted.
    pub(super) tree: tokio::sync::Mutex<()>,
    pub(super) snapshots: Mutex<Tree>,
    identity: Identity,
    /// Name and CID, until the machine is closed.
    leases: Mutex<Option<Leases>>,
    status: watch::Receiver<Status>,
    started: Mutex<Option<Instant>>,
    closed: AtomicBool,
    pub(super) transcript: Transcript,
    /// Where in the console the machine was restored last.
    pub(super) restored_at: AtomicU64,
}

/// What a machine is put together from.
pub(super) struct Parts {
    pub(super) host: Arc<Host>,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) spec: Arc<MachineSpec>,
    pub(super) identity: Identity,
    pub(super) leases: Leases,
    pub(super) machine: Arc<dyn Machine>,
    pub(super) agent: Option<AgentClient>,
    /// The snapshot that it was forked from.
    pub(super) origin: Option<Origin>,
}

impl Vm {
    pub(super) fn new(parts: Parts) -> Self {
        let forked = parts.origin.is_some();
        let transcript = Transcript::new(parts.host.keeps_transcripts());
        Self {
            status: parts.machine.watch(),
            host: parts.host,
            backend: parts.backend,
            spec: parts.spec,
            machine: parts.machine,
            agent: parts.agent,
            tree: tokio::sync::Mutex::default(),
            snapshots: Mutex::new(Tree::new(parts.origin)),
            identity: parts.identity,
            leases: Mutex::new(Some(parts.leases)),
            started: Mutex::new(forked.then(Instant::now)),
            closed: AtomicBool::new(false),
            transcript,
            restored_at: AtomicU64::new(0),
        }
    }

    /// The id.
    pub fn id(&self) -> MachineId {
        self.identity.id
    }

    /// The name, unique among the live machines.
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// What it was made from.
    pub fn spec(&self) -> &Arc<MachineSpec> {
        &self.spec
    }

    /// The backend that runs it.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// The vsock CID.
    pub fn cid(&self) -> Cid {
        self.identity.cid
    }

    /// The locally administered MAC address.
    pub fn mac(&self) -> [u8; 6] {
        self.identity.mac
    }

    /// The state; `stopped` once the machine is closed.
    pub fn state(&self) -> State {
        if self.is_closed() { State::Stopped } else { self.status.borrow().state }
    }

    /// The state and the reason for it.
    pub fn status(&self) -> Status {
        let status = self.status.borrow().clone();
        Status { state: self.state(), ..status }
    }

    /// The status, as it changes.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.machine.watch()
    }

    /// Time since the machine was started; zero before.
    pub fn uptime(&self) -> Duration {
        lock(&self.started).map_or(Duration::ZERO, |started| started.elapsed())
    }

    /// All that the guest printed.
    pub fn console(&self) -> &Arc<Console> {
        self.machine.console()
    }

    /// What the guest printed since it was restored last; all that is kept if it never was.
    pub fn recent_console(&self) -> Vec<u8> {
        self.console().since(self.restored_at.load(Ordering::Relaxed)).0
    }

    /// What the machine was asked for, and what became of it; empty unless its host keeps that.
    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// Whether the machine was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Loads the kernel and starts the vCPUs. A failed start goes back to `created`.
    pub async fn start(&self) -> Result<()> {
        self.check(Operation::Start)?;
        self.machine.start().await?;
        lock(&self.started).get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Returns once no vCPU runs guest code.
    pub async fn pause(&self) -> Result<()> {
        self.check(Operation::Pause)?;
        self.machine.pause().await
    }

    /// Goes on after [`Vm::pause`].
    pub async fn resume(&self) -> Result<()> {
        self.check(Operation::Resume)?;
        self.machine.resume().await
    }

    /// Ends the machine at once, in any state. Idempotent; the handle stays open.
    pub async fn kill(&self) -> Result<()> {
        if self.is_closed() { Ok(()) } else { self.machine.kill().await }
    }

    /// Closes a machine that does not run.
    ///
    /// # Errors
    /// `vm.state` while it runs.
    pub fn remove(&self) -> Result<()> {
        if !self.is_closed() {
            self.state().allows(Operation::Remove)?;
            self.close();
        }
        Ok(())
    }

    /// Ends the machine at once and frees all that it holds: synchronous, idempotent, bounded.
    pub fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(agent) = &self.agent {
            agent.close();
        }
        self.machine.close();
        drop(lock(&self.leases).take());
    }

    /// Figures for people.
    pub async fn info(&self) -> Result<MachineInfo> {
        self.check_open("info")?;
        self.machine.info().await
    }

    /// Checks that the machine is open and that its state allows `operation`.
    pub(super) fn check(&self, operation: Operation) -> Result<()> {
        self.check_open(operation.as_str())?;
        let checked = self.status.borrow().state.allows(operation);
        checked.map_err(|error| error.with_detail("vm", self.name()))
    }

    pub(super) fn check_open(&self, operation: &'static str) -> Result<()> {
        if !self.is_closed() {
            return Ok(());
        }
        Err(Error::new(
            Code::VmState,
            format!("{operation} is not possible: the machine {:?} was closed", self.name()),
        )
        .with_hint("a machine is closed when its <close> variable goes out of scope")
        .with_detail("state", State::Stopped.as_str())
        .with_detail("operation", operation)
        .with_detail("vm", self.name()))
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.close();
    }
}

/// Locks what is never left half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
