//! What a vCPU does when it leaves the guest.

use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::bus::Bus;
use crate::legacy::PortOutcome;

/// Why a vCPU stopped running guest code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The guest powered off.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// The guest or the hypervisor cannot go on.
    Crash(String),
}

/// What one return of `KVM_RUN` means.
#[derive(Debug)]
pub(crate) enum Step {
    /// Run on.
    Continue,
    /// A signal or `immediate_exit`.
    Interrupted,
    /// Guest code must not run any more.
    Ended(Ending),
}

/// Runs guest code until it leaves the guest, and serves the exit.
pub(crate) fn step(vcpu: &mut VcpuFd, bus: &Bus) -> Step {
    let exit = match vcpu.run() {
        Ok(exit) => exit,
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
            return Step::Interrupted;
        }
        Err(error) => return crash(format!("KVM_RUN failed: {error}")),
    };
    match exit {
        VcpuExit::IoIn(port, data) => {
            bus.ports.read(port, data);
            Step::Continue
        }
        VcpuExit::IoOut(port, data) => match bus.ports.write(port, data) {
            PortOutcome::Continue => Step::Continue,
            PortOutcome::PowerOff => Step::Ended(Ending::PowerOff),
            PortOutcome::Reset => Step::Ended(Ending::Reset),
            PortOutcome::GuestPanic(reason) => crash(reason),
        },
        VcpuExit::MmioRead(address, data) => {
            bus.read(address, data);
            Step::Continue
        }
        VcpuExit::MmioWrite(address, data) => {
            bus.write(address, data);
            Step::Continue
        }
        VcpuExit::Intr => Step::Interrupted,
        VcpuExit::Shutdown => crash("triple fault".to_owned()),
        VcpuExit::FailEntry(reason, cpu) => crash(format!(
            "the processor refused to enter the guest: reason {reason:#x}, CPU {cpu}"
        )),
        VcpuExit::InternalError => crash(internal_error(vcpu)),
        other => {
            let text = format!("{other:?}");
            crash(format!("unexpected exit {text}"))
        }
    }
}

fn crash(reason: String) -> Step {
    Step::Ended(Ending::Crash(reason))
}

/// Describes `KVM_EXIT_INTERNAL_ERROR` (KVM API section 5) with the place in the guest.
fn internal_error(vcpu: &mut VcpuFd) -> String {
    // SAFETY: `internal` is the member of the union that this exit reason fills.
    let (suberror, data) = unsafe {
        let internal = &vcpu.get_kvm_run().__bindgen_anon_1.internal;
        let count = (internal.ndata as usize).min(internal.data.len());
        (internal.suberror, internal.data[..count].to_vec())
    };
    let cause = match suberror {
        1 => "an instruction that this KVM cannot emulate",
        2 => "exceptions while delivering an exception",
        3 => "an event that could not be delivered",
        4 => "an unexpected exit from the guest",
        _ => "an unknown internal error of KVM",
    };
    let place = vcpu.get_regs().map(|registers| registers.rip).unwrap_or_default();
    // The instruction's bytes follow a flag word and their count (struct emulation_failure).
    let bytes: Vec<u8> = data.iter().skip(1).flat_map(|word| word.to_le_bytes()).collect();
    let code: Vec<String> = bytes
        .split_first()
        .map(|(count, bytes)| bytes.iter().take(usize::from(*count).min(15)))
        .into_iter()
        .flatten()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{cause} at {place:#x} ({})", code.join(" "))
}
