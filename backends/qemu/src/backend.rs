//! QEMU as a backend.

use std::sync::Arc;

use async_trait::async_trait;
use vmoon_core::backend::{Backend, SnapshotImage};
use vmoon_core::saved::{Progress, Saved};
use vmoon_core::spec::{Identity, MachineSpec};
use vmoon_core::{BootSource, Capabilities, Capability, Machine, Result};

use crate::machine::birth::{self, Origin};
use crate::plan::Plan;
use crate::process::program::Program;
use crate::snapshot::{QemuSnapshot, blocking, saved};

/// The most vCPUs that QEMU's microvm is given here.
const MAX_CPUS: u32 = 64;

/// QEMU, a process for each machine. Looked for when it is first asked.
#[derive(Debug, Default)]
pub struct QemuBackend(());

impl QemuBackend {
    /// The backend; nothing is looked for yet.
    pub const fn new() -> Self {
        Self(())
    }
}

/// Whether machines can be broken on purpose.
pub(crate) const NO_FAULTS: Capability =
    Capability::no("QEMU's own devices do not fail at anybody's wish");

#[async_trait]
impl Backend for QemuBackend {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn probe(&self) -> Result<()> {
        Program::get().map(drop)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            snapshot: Capability::Yes,
            fork: Capability::Yes,
            save: Capability::Yes,
            vsock: Capability::Yes,
            balloon: Capability::Yes,
            balloon_reclaims_host_memory: Capability::Yes,
            entropy: Capability::Yes,
            disks: Capability::Yes,
            qcow2: Capability::Yes,
            shares: Capability::no("there is no virtio-fs device"),
            net: Capability::no("there is no network device; use vsock and vm:forward"),
            rosetta: Capability::no("Rosetta exists on Apple silicon only"),
            faults: NO_FAULTS,
            linux: Capability::Yes,
            max_cpus: MAX_CPUS,
        }
    }

    async fn create(
        &self,
        spec: Arc<MachineSpec>,
        identity: Identity,
        boot: BootSource,
    ) -> Result<Arc<dyn Machine>> {
        crate::kernel::check(&boot.kernel)?;
        let plan = Arc::new(Plan::new(&spec)?);
        let (machine, _) = birth::bear(plan, Origin::Boot(Box::new(boot)), &identity).await?;
        Ok(Arc::new(machine))
    }

    async fn load(&self, saved: Saved, progress: Progress) -> Result<Arc<dyn SnapshotImage>> {
        let frozen = blocking(move || saved::read(&saved, Program::get()?, &progress)).await?;
        Ok(Arc::new(QemuSnapshot(Arc::new(frozen))))
    }
}
