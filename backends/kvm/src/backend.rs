//! KVM as a backend.

use std::sync::Arc;

use async_trait::async_trait;
use vmoon_core::backend::{Backend, SnapshotImage};
use vmoon_core::saved::{Progress, Saved};
use vmoon_core::spec::{Identity, MachineSpec};
use vmoon_core::{BootSource, Capabilities, Capability, Fact, Machine, Result};

use crate::boot::layout;
use crate::facts;
use crate::machine::birth::{Origin, Unborn};
use crate::snapshot::frozen::{KvmSnapshot, blocking};
use crate::snapshot::saved;
use crate::vm::host::KvmHost;
use crate::vm::plan::Plan;

/// The kernel's hypervisor, through `/dev/kvm`. Opened when it is first asked.
#[derive(Debug, Default)]
pub struct KvmBackend(());

impl KvmBackend {
    /// The backend; nothing is opened yet.
    pub const fn new() -> Self {
        Self(())
    }
}

#[async_trait]
impl Backend for KvmBackend {
    fn name(&self) -> &'static str {
        "kvm"
    }

    fn probe(&self) -> Result<()> {
        KvmHost::get().map(drop)
    }

    fn facts(&self) -> Vec<Fact> {
        facts::facts()
    }

    fn capabilities(&self) -> Capabilities {
        let emulates = KvmHost::get().is_ok_and(|host| host.emulates);
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
            faults: Capability::Yes,
            linux: if emulates {
                Capability::no(
                    "the processor has no VT-x or SVM, and the KVM here emulates too little for a \
                     stock Linux",
                )
            } else {
                Capability::Yes
            },
            max_cpus: layout::MAX_CPUS.min(max_cpus()),
        }
    }

    async fn create(
        &self,
        spec: Arc<MachineSpec>,
        identity: Identity,
        boot: BootSource,
    ) -> Result<Arc<dyn Machine>> {
        let plan = Plan::new(&spec, KvmHost::get()?);
        let origin = Origin::Boot(Box::new(boot), spec.guest.clone());
        let (machine, _) = Unborn::conceive(&plan, true)?.bear(plan, origin, &identity).await?;
        Ok(Arc::new(machine))
    }

    async fn load(&self, saved: Saved, progress: Progress) -> Result<Arc<dyn SnapshotImage>> {
        let frozen = blocking(move || saved::read(&saved, KvmHost::get()?, &progress)).await?;
        Ok(Arc::new(KvmSnapshot(Arc::new(frozen))))
    }
}

/// The most vCPUs that this host's KVM gives a machine.
fn max_cpus() -> u32 {
    KvmHost::get().map_or(1, |host| u32::try_from(host.kvm.get_max_vcpus()).unwrap_or(u32::MAX))
}
