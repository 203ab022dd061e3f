//! What every backend says no to, in the same words.

use crate::capabilities::Capability;
use crate::error::{Code, Error, Result};

/// Refuses what needs a device that the machine was made without; `device` is its key in the spec.
///
/// # Errors
/// `backend.unsupported`.
pub fn check_device(there: bool, device: &'static str) -> Result<()> {
    if there { Ok(()) } else { Err(absent_device(device)) }
}

/// The machine was made without the device; `device` is its key in the spec.
pub fn absent_device(device: &'static str) -> Error {
    Error::new(Code::BackendUnsupported, format!("the machine has no {device} device"))
        .with_hint(format!("make it with {device} = true"))
        .with_detail("feature", device)
}

/// Refuses input of which the guest's console took a part only: `taken` of `length` bytes.
///
/// # Errors
/// `vm.timeout`.
pub fn check_typed(taken: usize, length: usize) -> Result<()> {
    if taken == length {
        return Ok(());
    }
    Err(Error::new(Code::VmTimeout, format!("the guest's console took {taken} of {length} bytes"))
        .with_hint("the guest does not read its console; write less, or wait until it does"))
}

/// Faults on purpose, on a backend that has none.
pub fn no_faults(backend: &str, capability: &Capability) -> Error {
    let reason = capability.reason().unwrap_or_default();
    Error::new(
        Code::BackendUnsupported,
        format!("a fault is not possible with {backend}: {reason}"),
    )
    .with_detail("feature", "faults")
}

/// The machine was closed before, or while, it was asked.
pub fn closed() -> Error {
    Error::new(Code::VmState, "the machine is closed").with_detail("state", "closed")
}
