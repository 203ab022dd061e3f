//! The state in which the boot vCPU enters the kernel.

use kvm_bindings::{kvm_dtable, kvm_fpu, kvm_regs, kvm_segment, kvm_sregs};

use super::layout;
use super::tables::{CODE_SELECTOR, DATA_SELECTOR, GDT_ENTRIES, TASK_SELECTOR};

const CR0_PROTECTED: u64 = 1;
const CR0_EXTENSION_TYPE: u64 = 1 << 4;
const CR0_PAGING: u64 = 1 << 31;
const CR4_PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
const EFER_LONG_MODE: u64 = (1 << 8) | (1 << 10);
/// The bit of RFLAGS that is always one.
const RFLAGS_RESERVED: u64 = 2;

/// Where and how a loaded kernel is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// 64-bit mode with the zero page in RSI (Linux's 64-bit boot protocol).
    Linux64 {
        /// Initial instruction pointer.
        address: u64,
    },
    /// 32-bit protected mode without paging, the start info in EBX (PVH).
    Pvh {
        /// Initial instruction pointer.
        address: u32,
    },
}

/// General registers for the boot vCPU.
pub(crate) fn initial_registers(entry: Entry) -> kvm_regs {
    let common = kvm_regs { rflags: RFLAGS_RESERVED, ..kvm_regs::default() };
    match entry {
        Entry::Linux64 { address } => kvm_regs {
            rip: address,
            rsi: layout::ZERO_PAGE.0,
            rsp: layout::BOOT_STACK.0,
            rbp: layout::BOOT_STACK.0,
            ..common
        },
        Entry::Pvh { address } => {
            kvm_regs { rip: address.into(), rbx: layout::PVH_START_INFO.0, ..common }
        }
    }
}

/// Changes the special registers that KVM gave the boot vCPU (`KVM_GET_SREGS`).
pub(crate) fn set_special_registers(entry: Entry, sregs: &mut kvm_sregs) {
    let long_mode = matches!(entry, Entry::Linux64 { .. });
    let data = segment(DATA_SELECTOR, 0x3, 1);
    sregs.cs = kvm_segment {
        l: u8::from(long_mode),
        db: u8::from(!long_mode),
        ..segment(CODE_SELECTOR, 0xb, 1)
    };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = kvm_segment { limit: 0x67, g: 0, db: 0, ..segment(TASK_SELECTOR, 0xb, 0) };
    let gdt_limit = u16::try_from(GDT_ENTRIES * 8 - 1).unwrap_or(u16::MAX);
    sregs.gdt = kvm_dtable { base: layout::GDT.0, limit: gdt_limit, ..kvm_dtable::default() };
    // No interrupt can be taken before the kernel has a table of its own.
    sregs.idt = kvm_dtable::default();
    if long_mode {
        sregs.cr0 = CR0_PROTECTED | CR0_EXTENSION_TYPE | CR0_PAGING;
        sregs.cr3 = layout::PAGE_TABLES.0;
        sregs.cr4 = CR4_PHYSICAL_ADDRESS_EXTENSION;
        sregs.efer = EFER_LONG_MODE;
    } else {
        sregs.cr0 = CR0_PROTECTED | CR0_EXTENSION_TYPE;
        (sregs.cr3, sregs.cr4, sregs.efer) = (0, 0, 0);
    }
}

/// The floating-point state after FNINIT, with SSE exceptions masked.
pub(crate) fn initial_fpu() -> kvm_fpu {
    kvm_fpu { fcw: 0x37f, mxcsr: 0x1f80, ..kvm_fpu::default() }
}

/// A flat, present segment of ring 0.
fn segment(selector: u16, kind: u8, code_or_data: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: kind,
        present: 1,
        dpl: 0,
        db: 1,
        s: code_or_data,
        l: 0,
        g: 1,
        avl: 0,
        unusable: 0,
        padding: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_mode_has_paging_and_a_64_bit_segment() {
        let entry = Entry::Linux64 { address: 0x100_0200 };
        let mut sregs = kvm_sregs::default();
        set_special_registers(entry, &mut sregs);
        assert_eq!((sregs.cs.l, sregs.cs.db, sregs.cs.selector), (1, 0, 0x10));
        assert_eq!((sregs.cr3, sregs.efer), (0x9000, 0x500));
        assert!(sregs.cr0 & CR0_PAGING != 0);
        let regs = initial_registers(entry);
        assert_eq!((regs.rip, regs.rsi, regs.rflags), (0x100_0200, 0x7000, 2));
    }

    #[test]
    fn pvh_starts_in_32_bit_mode_without_paging() {
        let entry = Entry::Pvh { address: 0x100_0000 };
        let mut sregs = kvm_sregs { efer: 0x500, cr3: 1, ..kvm_sregs::default() };
        set_special_registers(entry, &mut sregs);
        assert_eq!((sregs.cs.l, sregs.cs.db), (0, 1));
        assert_eq!((sregs.cr0, sregs.cr3, sregs.efer), (0x11, 0, 0));
        assert_eq!(initial_registers(entry).rbx, 0x6000);
    }
}
