//! Model-specific registers that firmware would have set.

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

/// `IA32_MISC_ENABLE`.
const MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRINGS: u64 = 1;
/// `IA32_MTRR_DEF_TYPE`.
const MTRR_DEFAULT_TYPE: u32 = 0x2ff;
const MTRR_ENABLE: u64 = 1 << 11;
const MTRR_WRITE_BACK: u64 = 6;

/// Register numbers and values; every other register keeps KVM's reset value.
pub(crate) const BOOT_MSRS: [(u32, u64); 2] = [
    (MISC_ENABLE, MISC_ENABLE_FAST_STRINGS),
    // Without it all memory is uncacheable to a kernel that looks.
    (MTRR_DEFAULT_TYPE, MTRR_ENABLE | MTRR_WRITE_BACK),
];

/// Sets [`BOOT_MSRS`] after CPUID has been set, leaving out those that this KVM does not have.
pub(crate) fn set_boot_msrs(vcpu: &VcpuFd) {
    for (index, data) in BOOT_MSRS {
        let entry = kvm_msr_entry { index, data, ..kvm_msr_entry::default() };
        // One at a time: KVM stops at the first that it refuses.
        let set = Msrs::from_entries(&[entry]).ok().and_then(|msrs| vcpu.set_msrs(&msrs).ok());
        if set != Some(1) {
            tracing::debug!("KVM does not take model-specific register {index:#x}");
        }
    }
}
