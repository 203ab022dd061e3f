//! The traits that a hypervisor implements. The cut is at the machine, not at the vCPU:
//! Virtualization.framework has no vCPU to show.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::capabilities::Capabilities;
use crate::console::Console;
use crate::disk::DiskContents;
use crate::error::{Error, Result};
use crate::faults::FaultInjection;
use crate::lifecycle::State;
use crate::saved::{Progress, Saved};
use crate::spec::{BootSource, Identity, MachineSpec};
use crate::units::{Bytes, SnapshotId, VsockPort};
use crate::vsock::{VsockListener, VsockStream};

/// A hypervisor on this host.
#[async_trait]
pub trait Backend: Send + Sync + std::fmt::Debug {
    /// `kvm`, `qemu` or `vz`.
    fn name(&self) -> &'static str;

    /// Whether it works here.
    ///
    /// # Errors
    /// `backend.unavailable`, with the reason and what to do.
    fn probe(&self) -> Result<()>;

    /// What explains, to people, how well it works here or why it does not. Costs more than
    /// [`Backend::probe`]: for diagnosis.
    fn facts(&self) -> Vec<Fact> {
        Vec::new()
    }

    /// What it can do here. Meaningful only where [`Backend::probe`] succeeds.
    fn capabilities(&self) -> Capabilities;

    /// Reserves a machine in state [`State::Created`]; no guest code runs.
    ///
    /// `boot` has been resolved from `spec.guest`, and `spec` checked against the capabilities.
    async fn create(
        &self,
        spec: Arc<MachineSpec>,
        identity: Identity,
        boot: BootSource,
    ) -> Result<Arc<dyn Machine>>;

    /// Checks the parts of a saved snapshot that this backend wrote, and holds it as if it had
    /// been taken here. No machine is made.
    ///
    /// # Errors
    /// `snapshot.corrupt` or `snapshot.incompatible`, naming the part.
    async fn load(&self, saved: Saved, progress: Progress) -> Result<Arc<dyn SnapshotImage>>;
}

/// Something about a backend on this host, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What it is about, in a word or two.
    pub name: &'static str,
    /// What is so.
    pub value: String,
    /// What to do about it, where something can be better.
    pub advice: Option<String>,
}

impl Fact {
    /// A fact that needs nothing done.
    pub fn new(name: &'static str, value: impl Into<String>) -> Self {
        Self { name, value: value.into(), advice: None }
    }

    /// A fact with what to do about it.
    pub fn with_advice(
        name: &'static str,
        value: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { name, value: value.into(), advice: Some(advice.into()) }
    }
}

/// A machine: a handle to the thread that owns it.
///
/// Every method may be called from any task. The order of operations is checked by the
/// implementation with [`State::allows`]; an operation that the state forbids fails with
/// `vm.state` and changes nothing. Dropping the last handle kills the machine and frees all that
/// it held.
#[async_trait]
pub trait Machine: Send + Sync + std::fmt::Debug {
    /// The machine's state, as it changes.
    fn watch(&self) -> watch::Receiver<Status>;

    /// Loads the kernel and starts the vCPUs. A failed start goes back to `created`.
    async fn start(&self) -> Result<()>;

    /// Returns once no vCPU runs guest code.
    async fn pause(&self) -> Result<()>;

    /// Goes on after [`Machine::pause`].
    async fn resume(&self) -> Result<()>;

    /// Presses the power button. Returns at once; the guest decides.
    async fn press_power_button(&self) -> Result<()>;

    /// Enters [`State::Stopping`] from `running` or `paused`; paused vCPUs go on, to hear of it.
    async fn begin_stop(&self) -> Result<()>;

    /// Ends the machine at once, in any state. Idempotent.
    async fn kill(&self) -> Result<()>;

    /// Ends the machine at once and frees all that it holds, synchronously and within bounded
    /// time. Idempotent; every other method fails afterwards. For `<close>` and `Drop`.
    fn close(&self);

    /// Freezes memory, vCPUs, interrupt controllers, clock, devices and overlay disks as one
    /// unit. The machine goes on. Costs follow the pages dirtied since the previous snapshot.
    async fn snapshot(&self, id: SnapshotId) -> Result<Arc<dyn SnapshotImage>>;

    /// Goes back, in place, to a snapshot of this machine or to the one that it was forked from.
    /// Connections that were idle in the snapshot live on; others are reset.
    ///
    /// # Errors
    /// `snapshot.not_found`; on failure nothing has changed.
    async fn restore(&self, snapshot: SnapshotId, options: RestoreOptions)
    -> Result<RestoreReport>;

    /// Forgets a snapshot. What others need of it is kept.
    async fn forget(&self, snapshot: SnapshotId) -> Result<()>;

    /// Opens a connection to a port of the guest; fails with `vsock.refused` if nobody listens.
    /// Waits without limit: wrap it in a deadline. Cancel-safe.
    async fn connect(&self, port: VsockPort) -> Result<VsockStream>;

    /// Answers the guest on a port of the host.
    async fn listen(&self, port: VsockPort) -> Result<Box<dyn VsockListener>>;

    /// All that the guest printed, and the way to type.
    fn console(&self) -> &Arc<Console>;

    /// Types into the guest's console.
    async fn type_console(&self, bytes: Vec<u8>) -> Result<()>;

    /// Sets the memory that the guest should be left with. Returns at once.
    async fn set_balloon(&self, target: Bytes) -> Result<()>;

    /// The balloon as it is: what the guest is left with, as it changes.
    async fn balloon(&self) -> Result<watch::Receiver<BalloonLevel>>;

    /// Asks the guest for its memory statistics.
    async fn balloon_statistics(&self) -> Result<BalloonStatistics>;

    /// What the guest's device holds now as the disk at this place in the spec, unwritten caches
    /// of the guest apart. The machine goes on, and only a disk that it writes in place may change.
    async fn disk(&self, index: usize) -> Result<Arc<dyn DiskContents>>;

    /// The way to break this machine on purpose.
    ///
    /// # Errors
    /// `backend.unsupported` where there is none, as the capability `faults` says.
    fn faults(&self) -> Result<&dyn FaultInjection>;

    /// Figures for people.
    async fn info(&self) -> Result<MachineInfo>;
}

/// The state of a machine with the reason, where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The state.
    pub state: State,
    /// Why the machine crashed or stopped.
    pub reason: Option<String>,
}

/// The frozen state of a machine, kept by its backend.
#[async_trait]
pub trait SnapshotImage: Send + Sync + std::fmt::Debug {
    /// The snapshot's id.
    fn id(&self) -> SnapshotId;

    /// What it cost.
    fn figures(&self) -> SnapshotFigures;

    /// A new machine in this state, paused, sharing memory copy-on-write. With `deterministic` its
    /// entropy device gives the same bytes in every run from the snapshot.
    async fn fork(&self, identity: Identity, deterministic: bool) -> Result<Forked>;

    /// The overlay disk at this place in the spec, as it was.
    ///
    /// # Errors
    /// `snapshot.incompatible` when the image beneath it has changed, `file.*`.
    async fn disk(&self, index: usize) -> Result<Arc<dyn DiskContents>>;

    /// Writes the snapshot to a directory with [`crate::saved::Writer`], which does it atomically.
    /// `annotations` becomes part of the manifest.
    async fn save(
        &self,
        directory: &Path,
        annotations: serde_json::Value,
        progress: Progress,
    ) -> Result<()>;
}

/// What a snapshot cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotFigures {
    /// Pages dirtied since the snapshot's parent.
    pub dirty_pages: u64,
    /// Bytes that this layer holds: pages, device state and disk blocks.
    pub bytes: Bytes,
    /// The state of the machine when it was taken: `running` or `paused`.
    pub paused: bool,
}

/// A machine made from a snapshot.
#[derive(Debug)]
pub struct Forked {
    /// The machine, paused.
    pub machine: Arc<dyn Machine>,
    /// The connections that were idle in the snapshot: each lives on in the new machine.
    pub connections: Vec<VsockStream>,
    /// The snapshot that it came from, known to the new machine as its root.
    pub snapshot: Arc<dyn SnapshotImage>,
}

/// How to restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreOptions {
    /// Hold the machine paused rather than leave it in the snapshot's state.
    pub paused: bool,
    /// Give the guest the same bytes of its entropy device in every run from the snapshot.
    pub deterministic: bool,
}

/// What a restore did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Pages put back.
    pub dirty_pages: u64,
    /// The time for which no vCPU could run.
    pub downtime: Duration,
}

/// Where the balloon stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalloonLevel {
    /// Bytes that the guest should be left with.
    pub target: Bytes,
    /// Bytes that the guest is left with.
    pub actual: Bytes,
}

/// The guest's own memory figures (virtio 1.3 section 5.5.6.3), absent where it reports none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "each field is the statistic of the same name in the standard, in bytes or events"
)]
pub struct BalloonStatistics {
    pub swap_in: Option<u64>,
    pub swap_out: Option<u64>,
    pub major_faults: Option<u64>,
    pub minor_faults: Option<u64>,
    pub free_memory: Option<u64>,
    pub total_memory: Option<u64>,
    pub available_memory: Option<u64>,
    pub disk_caches: Option<u64>,
    pub hugetlb_allocations: Option<u64>,
    pub hugetlb_failures: Option<u64>,
    /// Bytes of guest RAM that are resident on the host.
    pub host_rss: u64,
}

/// Figures for people.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MachineInfo {
    /// Time since the machine first ran.
    pub uptime: Duration,
    /// Bytes of guest RAM that are resident on the host.
    pub host_rss: Bytes,
    /// Pages dirtied since the last snapshot or restore.
    pub dirty_pages: u64,
    /// One line a device: its name and what it is doing, or why it is broken.
    pub devices: Vec<(String, String)>,
}

/// Asks a backend to refuse what it cannot do.
pub fn check_capability(
    backend: &str,
    feature: &str,
    capability: &crate::capabilities::Capability,
) -> Result<()> {
    match capability.reason() {
        None => Ok(()),
        Some(reason) => Err(Error::new(
            crate::error::Code::BackendUnsupported,
            format!("{feature} is not possible with {backend}: {reason}"),
        )
        .with_detail("backend", backend)
        .with_detail("feature", feature)),
    }
}
