//! Whether the KVM at hand runs guests at full semantics.

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit};

/// `xorps xmm0, xmm0; hlt`: a KVM without virtualization hardware beneath it emulates its guests
/// and has no SSE, which every stock Linux uses.
const CODE: [u8; 4] = [0x0f, 0x57, 0xc0, 0xf4];
const ADDRESS: u16 = 0x1000;
/// Control register 4: the operating system saves SSE state and handles its exceptions.
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;

#[repr(align(4096))]
struct Page([u8; 4096]);

/// Runs one SSE instruction in a machine of one page.
pub fn runs_stock_linux() -> bool {
    run().unwrap_or(false)
}

fn run() -> Result<bool, kvm_ioctls::Error> {
    let mut page = Box::new(Page([0; 4096]));
    page.0[..CODE.len()].copy_from_slice(&CODE);
    let machine = Kvm::new()?.create_vm()?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: u64::from(ADDRESS),
        memory_size: 4096,
        userspace_addr: (&raw mut *page) as u64,
    };
    // SAFETY: the region is `page`, page-aligned and one page long, which nothing else touches
    // and which outlives the machine: it is dropped after `machine` and `vcpu`.
    unsafe { machine.set_user_memory_region(region)? };
    let mut vcpu = machine.create_vcpu(0)?;
    let mut special = vcpu.get_sregs()?;
    special.cs.base = 0;
    special.cs.selector = 0;
    special.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
    vcpu.set_sregs(&special)?;
    let mut registers = vcpu.get_regs()?;
    registers.rip = u64::from(ADDRESS);
    registers.rflags = 2;
    vcpu.set_regs(&registers)?;
    Ok(matches!(vcpu.run(), Ok(VcpuExit::Hlt)))
}
