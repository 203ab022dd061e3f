//! The calls that make a virtual machine in KVM.

use kvm_bindings::{
    CpuId, KVM_MEM_LOG_DIRTY_PAGES, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{VcpuFd, VmFd};
use vmoon_core::Result;

use super::host::KvmHost;
use crate::boot::layout;
use crate::memory::ram::Ram;
use crate::vcpu::state::failed;

/// A virtual machine with memory, interrupt controllers and timer. `ram` must outlive it.
///
/// Memory slots come before the interrupt controllers: later, each costs an SRCU grace period.
pub(crate) fn create_vm(host: &KvmHost, ram: &Ram) -> Result<VmFd> {
    let vm = host.kvm.create_vm().map_err(|error| failed("KVM_CREATE_VM", error))?;
    for (slot, region) in ram.regions().iter().enumerate() {
        let slot = kvm_userspace_memory_region {
            slot: u32::try_from(slot).expect("few slots"),
            flags: KVM_MEM_LOG_DIRTY_PAGES,
            guest_phys_addr: region.start,
            memory_size: region.length as u64,
            userspace_addr: ram.host_address(region),
        };
        // SAFETY: the range is mapped for as long as `ram` lives, which the caller keeps for
        // longer than the machine; unmapping it earlier would fault in the guest, not here.
        unsafe { vm.set_user_memory_region(slot) }
            .map_err(|error| failed("KVM_SET_USER_MEMORY_REGION", error))?;
    }
    vm.set_tss_address(usize::try_from(layout::KVM_TSS).expect("64-bit host"))
        .map_err(|error| failed("KVM_SET_TSS_ADDR", error))?;
    vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
        .map_err(|error| failed("KVM_SET_IDENTITY_MAP_ADDR", error))?;
    vm.create_irq_chip().map_err(|error| failed("KVM_CREATE_IRQCHIP", error))?;
    let timer = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
    vm.create_pit2(timer).map_err(|error| failed("KVM_CREATE_PIT2", error))?;
    Ok(vm)
}

/// A vCPU with its CPUID.
pub(crate) fn create_vcpu(vm: &VmFd, index: usize, cpuid: &CpuId) -> Result<VcpuFd> {
    let vcpu = vm.create_vcpu(index as u64).map_err(|error| failed("KVM_CREATE_VCPU", error))?;
    vcpu.set_cpuid2(cpuid).map_err(|error| failed("KVM_SET_CPUID2", error))?;
    Ok(vcpu)
}
