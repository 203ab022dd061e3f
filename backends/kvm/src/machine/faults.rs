//! What can be broken in a machine on purpose.

use async_trait::async_trait;
use tokio::sync::oneshot;
use vmoon_core::faults::{BlockRule, Fault, FaultId, FaultInjection, VsockRule};
use vmoon_core::{Code, Error, Result};
use vmoon_virtio::faults::FaultRules;

use super::command::{Command, Mailbox};
use crate::vcpu::holds::Holds;

/// The rules of a machine's devices and the holds on its vCPUs.
#[derive(Clone, Debug)]
pub(crate) struct KvmFaults {
    pub(super) mailbox: Mailbox,
    pub(super) disks: Vec<FaultRules<BlockRule>>,
    pub(super) vsock: Option<FaultRules<VsockRule>>,
    pub(super) holds: Holds,
}

/// The caller checks faults against the spec, of which the devices are made.
fn absent() -> Error {
    Error::new(Code::VmSpec, "the machine does not have what is to be broken")
}

#[async_trait]
impl FaultInjection for KvmFaults {
    async fn inject(&self, id: FaultId, fault: Fault) -> Result<()> {
        match fault {
            Fault::Block(index, rule) => {
                self.disks.get(index).ok_or_else(absent)?.insert(id, rule);
            }
            Fault::Vsock(rule) => self.vsock.as_ref().ok_or_else(absent)?.insert(id, rule),
            Fault::Vcpu(index) => self.holds.insert(id, index),
        }
        // The machine's thread serves devices as well: what it does after its answer obeys the rule.
        self.mailbox.ask(Command::HoldVcpus).await
    }

    fn withdraw(&self, id: FaultId) {
        for rules in &self.disks {
            rules.remove(id);
        }
        if let Some(rules) = &self.vsock {
            rules.remove(id);
        }
        if self.holds.remove(id) {
            // Whoever closes a fault does not wait.
            let (reply, _) = oneshot::channel();
            self.mailbox.send(Command::HoldVcpus(reply));
        }
    }

    fn active(&self) -> Vec<(FaultId, u64)> {
        let disks = self.disks.iter().flat_map(FaultRules::active).map(|it| (it.id, it.hits));
        let vsock = self.vsock.iter().flat_map(FaultRules::active).map(|it| (it.id, it.hits));
        let holds = self.holds.all().into_iter().map(|(id, _)| (id, 1));
        disks.chain(vsock).chain(holds).collect()
    }

    async fn crash(&self) -> Result<()> {
        self.mailbox.ask(Command::Crash).await
    }

    async fn nmi(&self) -> Result<()> {
        self.mailbox.ask(Command::Nmi).await
    }
}
