//! Which model-specific registers belong to a vCPU's state.

use std::sync::OnceLock;

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;
use vmoon_core::{Code, Error, Result};

/// The time stamp counter.
pub(crate) const TIME_STAMP_COUNTER: u32 = 0x10;
/// The deadline of the local APIC's timer; written last, see [`state`](super::state).
pub(crate) const TSC_DEADLINE: u32 = 0x6e0;

/// Where KVM's clock for the guest lies, by its first number and its present one; bit 0 says
/// whether it is on.
pub(crate) const KVM_SYSTEM_TIME: [u32; 2] = [0x12, 0x4b56_4d01];
/// See [`KVM_SYSTEM_TIME`].
pub(crate) const ENABLED: u64 = 1;

/// Registers that hold state of the guest, in the order in which they are written. Those that
/// are part of the special registers (EFER, FS and GS base, APIC base) are left to those.
const CANDIDATES: &[u32] = &[
    TIME_STAMP_COUNTER,
    0x3b, // TSC adjust
    0x48, // speculation control
    0xe1, // UMWAIT control
    0x174,
    0x175,
    0x176, // SYSENTER
    0x1a0, // miscellaneous enables
    0x1c4,
    0x1c5, // extended feature disable
    0x200,
    0x201,
    0x202,
    0x203,
    0x204,
    0x205,
    0x206,
    0x207, // variable memory types
    0x208,
    0x209,
    0x20a,
    0x20b,
    0x20c,
    0x20d,
    0x20e,
    0x20f, //
    0x250,
    0x258,
    0x259,
    0x268,
    0x269,
    0x26a,
    0x26b,
    0x26c, // fixed memory types
    0x26d,
    0x26e,
    0x26f,
    0x277,
    0x2ff, //
    0xd90,
    0xda0, // bounds, extended supervisor state
    0xc000_0081,
    0xc000_0082,
    0xc000_0083,
    0xc000_0084, // SYSCALL
    0xc000_0102,
    0xc000_0103, // kernel GS base, TSC_AUX
    0xc001_0015,
    0xc001_0117,
    0xc001_011f, // AMD: hardware configuration, host save, speculation
    0x11,
    0x12, // KVM's clocks by their first numbers
    0x4b56_4d00,
    0x4b56_4d01, // KVM's clocks
    0x4b56_4d02,
    0x4b56_4d03,
    0x4b56_4d04,
    0x4b56_4d05,
    0x4b56_4d06,
    0x4b56_4d07, //
    TSC_DEADLINE,
];

/// The registers among the candidates that this host's KVM reads and writes.
///
/// Found out once, on the first vCPU whose state is saved: every register but the counters is
/// read and written back, which changes nothing.
pub(crate) fn saved(vcpu: &VcpuFd) -> Result<&'static [u32]> {
    static SAVED: OnceLock<Vec<u32>> = OnceLock::new();
    if let Some(saved) = SAVED.get() {
        return Ok(saved);
    }
    let mut usable = Vec::with_capacity(CANDIDATES.len());
    for index in CANDIDATES {
        let mut msrs = list(&[*index])?;
        let readable = vcpu.get_msrs(&mut msrs).is_ok_and(|count| count == 1);
        let timed = matches!(*index, TIME_STAMP_COUNTER | TSC_DEADLINE);
        if readable && (timed || vcpu.set_msrs(&msrs).is_ok_and(|count| count == 1)) {
            usable.push(*index);
        }
    }
    tracing::debug!(count = usable.len(), "model-specific registers that snapshots keep");
    Ok(SAVED.get_or_init(|| usable))
}

/// A list of registers, their values still zero.
pub(crate) fn list(indexes: &[u32]) -> Result<Msrs> {
    let entries: Vec<_> =
        indexes.iter().map(|index| kvm_msr_entry { index: *index, ..Default::default() }).collect();
    Msrs::from_entries(&entries).map_err(|error| {
        Error::new(Code::GuestPanic, format!("{} registers in one list: {error:?}", indexes.len()))
    })
}
