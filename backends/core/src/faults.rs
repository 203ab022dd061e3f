//! What can be broken on purpose.
//!
//! A fault is plain data that a device or a vCPU keeps, and so part of the machine's state: a
//! snapshot remembers which faults there were, and a restore puts back exactly those. On disk a
//! snapshot has none.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::units::VsockPort;

/// Names a fault, uniquely in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FaultId(u64);

impl FaultId {
    /// An id that no fault has had.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Default for FaultId {
    fn default() -> Self {
        Self::new()
    }
}

/// Something broken, until it is withdrawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Requests to the disk at this place in the spec's list, from 0.
    Block(usize, BlockRule),
    /// Connections between host and guest.
    Vsock(VsockRule),
    /// The vCPU of this number, from 0, makes no progress.
    Vcpu(usize),
}

/// Which requests of a disk meet a fault, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRule {
    /// Only these requests; all when none.
    pub operation: Option<BlockOperation>,
    /// Only requests that touch a sector (512 bytes) from the first to the last of these; flushes
    /// touch none.
    pub sectors: Option<(u64, u64)>,
    /// How many matching requests are served as ever before.
    pub after: u64,
    /// How many requests meet the fault; all that follow when none.
    pub times: Option<u64>,
    /// What happens to them.
    pub effect: BlockEffect,
}

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the request of the same name")]
pub enum BlockOperation {
    Read,
    Write,
    Flush,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockEffect {
    /// It fails as an I/O error, and nothing is read or written.
    Error,
    /// The disk is busy with it for that long; requests behind it wait.
    Delay(Duration),
}

/// Which connections meet a fault, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VsockRule {
    /// Those to this port, of either side; all but the agent's when none.
    pub port: Option<VsockPort>,
    /// Once so many bytes have passed in either direction since the rule was made.
    pub after: u64,
    /// What happens to them.
    pub effect: VsockEffect,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VsockEffect {
    /// It is cut, and no new one is made.
    Cut,
    /// What is said on it arrives that much later, in both directions and in order; to connect
    /// takes that much longer.
    Delay(Duration),
}

impl VsockRule {
    /// Whether the rule is about a connection between these ports.
    pub fn concerns(&self, host: VsockPort, guest: VsockPort) -> bool {
        match self.port {
            Some(port) => host == port || guest == port,
            None => host != VsockPort::AGENT && guest != VsockPort::AGENT,
        }
    }
}

/// The way to break a machine.
#[async_trait]
pub trait FaultInjection: Send + Sync {
    /// Breaks something; in force when it returns. The caller has checked that the spec has it.
    async fn inject(&self, id: FaultId, fault: Fault) -> Result<()>;

    /// Mends it, soon; nothing where a restore did before.
    fn withdraw(&self, id: FaultId);

    /// The faults that there are, and how often each was met.
    fn active(&self) -> Vec<(FaultId, u64)>;

    /// The machine crashes at once, as if its power were cut: nothing is served any more.
    async fn crash(&self) -> Result<()>;

    /// Raises a non-maskable interrupt at the first vCPU.
    async fn nmi(&self) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_cut_off_only_by_its_port() {
        let all = VsockRule { port: None, after: 0, effect: VsockEffect::Cut };
        let (agent, other) = (VsockPort::AGENT, VsockPort(5000));
        assert!(all.concerns(VsockPort(1 << 30), other) && all.concerns(other, VsockPort(1 << 30)));
        assert!(!all.concerns(agent, other) && !all.concerns(other, agent));
        let its = VsockRule { port: Some(agent), ..all };
        assert!(its.concerns(agent, other) && !its.concerns(other, other));
        assert_ne!(FaultId::new(), FaultId::new());
    }
}
