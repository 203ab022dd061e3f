//! What a parked vCPU's own thread does for its machine.
//!
//! On its own thread, because KVM need not move the vCPU to another processor for each call; and
//! so all vCPUs work at once, beside the machine's thread, which meanwhile copies memory.

use std::sync::Arc;

use kvm_ioctls::VcpuFd;
use vmoon_core::Result;

use super::state::VcpuState;
use crate::snapshot::frozen::Frozen;

/// Work for a parked vCPU.
#[derive(Debug)]
pub(crate) enum Job {
    /// Read the state; the length is of the extended state in bytes.
    Save(usize),
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
    pub(super) fn perform(self, index: usize, vcpu: &VcpuFd) -> Outcome {
        match self {
            Self::Save(extended_length) => {
                Outcome::Saved(VcpuState::save(vcpu, extended_length).map(Box::new))
            }
            Self::Restore(frozen) => Outcome::Restored(
                frozen.state.vcpus.get(index).map_or(Ok(()), |state| state.restore(vcpu)),
            ),
        }
    }
}
