//! Faults: what can be broken on purpose, checked against the spec.

use std::time::Duration;

use super::disks::no_disk;
use super::machine::Vm;
use crate::backend;
use crate::error::{Code, Error, Result};
use crate::faults::{Fault, FaultId, FaultInjection};
use crate::lifecycle::Operation;

impl Vm {
    /// Breaks something until it is withdrawn, or a restore undoes it. Disks bear their numbers in
    /// scripts.
    ///
    /// # Errors
    /// `backend.unsupported`, `vm.state`; `vm.spec` where the machine does not have it.
    pub async fn inject_fault(&self, fault: Fault) -> Result<FaultId> {
        let faults = self.faults(Operation::Fault)?;
        let fault = self.checked(fault)?;
        let id = FaultId::new();
        faults.inject(id, fault).await?;
        Ok(id)
    }

    /// Mends it; nothing where a restore did before, or the machine is closed.
    pub fn withdraw_fault(&self, id: FaultId) {
        if let Ok(faults) = self.machine.faults() {
            faults.withdraw(id);
        }
    }

    /// The faults that there are, and how often each was met.
    pub fn active_faults(&self) -> Vec<(FaultId, u64)> {
        self.machine.faults().map(FaultInjection::active).unwrap_or_default()
    }

    /// The machine crashes at once, as if its power were cut.
    ///
    /// # Errors
    /// `backend.unsupported`, `vm.state`.
    pub async fn crash(&self) -> Result<()> {
        self.faults(Operation::Crash)?.crash().await
    }

    /// Raises a non-maskable interrupt.
    ///
    /// # Errors
    /// `backend.unsupported`, `vm.state`.
    pub async fn nmi(&self) -> Result<()> {
        self.faults(Operation::Fault)?.nmi().await
    }

    /// Sets the guest's wall clock to the host's, that much later, or earlier where `back`.
    ///
    /// # Errors
    /// Those of [`Vm::exec`].
    pub async fn jump_clock(&self, by: Duration, back: bool) -> Result<()> {
        let agent = self.commandable()?;
        crate::race::against_end(self.machine.as_ref(), agent.jump_clock(by, back)).await
    }

    fn faults(&self, operation: Operation) -> Result<&dyn FaultInjection> {
        self.check(operation)?;
        let capabilities = self.backend.capabilities();
        backend::check_capability(self.backend.name(), operation.as_str(), &capabilities.faults)?;
        self.machine.faults()
    }

    /// The fault, if the machine has what it breaks.
    fn checked(&self, fault: Fault) -> Result<Fault> {
        let absent = |what: String, hint: String| {
            Err(Error::new(Code::VmSpec, format!("the machine {:?} has no {what}", self.name()))
                .with_hint(hint))
        };
        match fault {
            Fault::Block(number, rule) => {
                let disk = self.spec.disk(number).ok_or_else(|| no_disk(&self.spec, number))?;
                Ok(Fault::Block(disk.0, rule))
            }
            Fault::Vsock(_) if self.spec.vsock.is_none() => {
                absent("vsock device".to_owned(), "leave `vsock` out of the spec".to_owned())
            }
            Fault::Vcpu(index) if index >= self.spec.cpus as usize => absent(
                format!("vCPU {index}"),
                format!("it has {}, counted from 0 as in the guest", self.spec.cpus),
            ),
            fault => Ok(fault),
        }
    }
}
