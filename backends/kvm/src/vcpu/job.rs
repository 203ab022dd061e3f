//! What a parked vCPU's own thread does for its machine.
//!
//! On its own thread, because KVM need not move the vCPU to another processor for each call; and
//! so all vCPUs work at once, beside the machine's thread, which meanwhile copies memory.

use std::sync::{Arc, Barrier};

use kvm_ioctls::VcpuFd;
use vmoon_core::Result;

use super::state::VcpuState;
use crate::snapshot::frozen::Frozen;
use crate::vm::host::KvmHost;

/// Work for a parked vCPU.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) task: Task,
    /// Where all vCPUs of the machine wait until the last is parked: a vCPU that still runs could
    /// interrupt one whose state is taken or put back already. None for a single vCPU.
    pub(crate) together: Option<Arc<Barrier>>,
}

/// What there is to do.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    /// Read the state.
    Save(&'static KvmHost),
    /// Put back the state that the vCPU has in this snapshot.
    Restore(Arc<Frozen>),
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The state that was read.
    Saved(Result<Box<VcpuState>>),
    /// Whether the state was put back.
    Restored(Result<()>),
}

impl Job {
    /// Does it on `vcpu`, the one of number `index`.
    pub(super) fn perform(self, index: usize, vcpu: &mut VcpuFd) -> Outcome {
        if let Some(barrier) = self.together {
            barrier.wait();
        }
        match self.task {
            Task::Save(host) => Outcome::Saved(VcpuState::save(vcpu, host).map(Box::new)),
            Task::Restore(frozen) => Outcome::Restored(
                frozen.state.vcpus.get(index).map_or(Ok(()), |state| state.restore(vcpu)),
            ),
        }
    }
}
