//! The guest's physical address space, as the kernel, the ACPI tables and KVM see it.
//!
//! | range | holds |
//! | --- | --- |
//! | `0x500` | GDT of the boot vCPU |
//! | `0x6000` | PVH start info, its module list and memory map |
//! | `0x7000` | Linux zero page (`boot_params`) |
//! | `0x8000`–`0x8ff0` | boot stack |
//! | `0x9000`–`0xefff` | page tables that map the first 4 GiB to themselves |
//! | `0x20000`–`0x2ffff` | command line |
//! | `0xe0000`–`0xeffff` | ACPI tables, RSDP first |
//! | `0xffff0` | what a kernel finds that resets itself by way of the BIOS |
//! | 1 MiB – | kernel; the initramfs lies at the top of low memory |
//! | 3 GiB – 4 GiB | no RAM: virtio-mmio devices, I/O APIC, local APICs |
//! | 4 GiB – | the rest of RAM |

use vm_memory::GuestAddress;

/// GDT of the boot vCPU (8 bytes an entry).
pub(crate) const GDT: GuestAddress = GuestAddress(0x500);
/// PVH start info.
pub(crate) const PVH_START_INFO: GuestAddress = GuestAddress(0x6000);
/// PVH module list: one entry, the initramfs.
pub(crate) const PVH_MODULES: GuestAddress = GuestAddress(0x6040);
/// PVH memory map.
pub(crate) const PVH_MEMORY_MAP: GuestAddress = GuestAddress(0x6080);
/// Linux zero page (`boot_params`), 4 KiB.
pub(crate) const ZERO_PAGE: GuestAddress = GuestAddress(0x7000);
/// Initial stack pointer; the stack grows down towards the zero page's end.
pub(crate) const BOOT_STACK: GuestAddress = GuestAddress(0x8ff0);
/// Top level of the boot page tables; five more pages follow.
pub(crate) const PAGE_TABLES: GuestAddress = GuestAddress(0x9000);
/// Command line, ended by a NUL.
pub(crate) const COMMAND_LINE: GuestAddress = GuestAddress(0x2_0000);
/// Room for the command line, the NUL included, in bytes.
pub(crate) const COMMAND_LINE_SIZE: usize = 0x1_0000;
/// End of conventional memory: where the extended BIOS data area would begin.
pub(crate) const LOW_MEMORY_END: u64 = 0x9_fc00;
/// The ACPI tables, beginning with the RSDP, which legacy guests look for here.
pub(crate) const ACPI_TABLES: GuestAddress = GuestAddress(0xe_0000);
/// Room for the ACPI tables, in bytes.
pub(crate) const ACPI_TABLES_SIZE: u64 = 0x1_0000;
/// The area of a PC's BIOS.
pub(crate) const BIOS: GuestAddress = GuestAddress(0xf_0000);
/// Size of the BIOS's area, in bytes.
pub(crate) const BIOS_SIZE: u64 = 0x1_0000;
/// Where a processor in real mode starts the BIOS anew: its last 16 bytes.
pub(crate) const BIOS_RESET: GuestAddress = GuestAddress(0xf_fff0);
/// Where memory above the legacy areas begins, and where kernels may be loaded.
pub(crate) const HIGH_MEMORY: GuestAddress = GuestAddress(0x10_0000);

/// Where low RAM ends at most and the hole for devices begins.
pub(crate) const MMIO_HOLE: u64 = 3 << 30;
/// Where the hole ends and the rest of RAM goes on.
pub(crate) const MMIO_HOLE_END: u64 = 4 << 30;

/// Registers of the first virtio-mmio device.
pub(crate) const VIRTIO_MMIO_BASE: u64 = 0xd000_0000;
/// Bytes of address space of each virtio-mmio device.
pub(crate) const VIRTIO_MMIO_SIZE: u64 = 0x1000;
/// Interrupt of the first virtio-mmio device; the others follow.
pub(crate) const VIRTIO_MMIO_FIRST_GSI: u32 = 10;
/// The most virtio-mmio devices: the I/O APIC has 24 inputs.
pub(crate) const VIRTIO_MMIO_MAX_DEVICES: u32 = 24 - VIRTIO_MMIO_FIRST_GSI;

/// Interrupt of the serial port.
pub(crate) const SERIAL_GSI: u32 = 4;
/// Interrupt of the generic event device, which reports the power button (ACPI 6.5 section 5.6.9).
pub(crate) const EVENT_DEVICE_GSI: u32 = 9;

/// Registers of KVM's I/O APIC.
pub(crate) const IO_APIC: u32 = 0xfec0_0000;
/// Registers of each vCPU's local APIC.
pub(crate) const LOCAL_APIC: u32 = 0xfee0_0000;
/// Three pages for KVM on Intel hosts (`KVM_SET_TSS_ADDR`).
pub(crate) const KVM_TSS: u64 = 0xfffb_d000;
/// One page for KVM on Intel hosts (`KVM_SET_IDENTITY_MAP_ADDR`).
pub(crate) const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;

/// The most vCPUs: local APIC ids have 8 bits, of which 255 means all.
pub(crate) const MAX_CPUS: u32 = 254;

/// Registers of virtio-mmio device `index`.
pub(crate) fn virtio_mmio_address(index: u32) -> GuestAddress {
    GuestAddress(VIRTIO_MMIO_BASE + u64::from(index) * VIRTIO_MMIO_SIZE)
}

/// Interrupt of virtio-mmio device `index`.
pub(crate) fn virtio_mmio_gsi(index: u32) -> u32 {
    VIRTIO_MMIO_FIRST_GSI + index
}

/// What tells a guest without ACPI of `count` virtio-mmio devices, in Linux's syntax:
/// `virtio_mmio.device=4K@0xd0000000:10 …`.
pub(crate) fn virtio_mmio_parameters(count: u32) -> String {
    (0..count)
        .map(|index| {
            let address = virtio_mmio_address(index).0;
            format!("virtio_mmio.device=4K@{address:#x}:{}", virtio_mmio_gsi(index))
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// The regions that `size` bytes of RAM occupy: below the hole, and from 4 GiB the rest.
pub(crate) fn ram_regions(size: u64) -> Vec<(GuestAddress, u64)> {
    let low = size.min(MMIO_HOLE);
    let mut regions = vec![(GuestAddress(0), low)];
    if size > low {
        regions.push((GuestAddress(MMIO_HOLE_END), size - low));
    }
    regions
}

/// What a range of the memory map is for (the values of the BIOS call e820).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RangeKind {
    /// Usable RAM.
    Ram,
    /// Not to be used.
    Reserved,
    /// RAM that holds ACPI tables, usable once they are read.
    AcpiTables,
}

impl RangeKind {
    /// The kind's number in an e820 map; PVH uses the same.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Ram => 1,
            Self::Reserved => 2,
            Self::AcpiTables => 3,
        }
    }
}

/// One range of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryRange {
    /// First address.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
    /// What it is for.
    pub kind: RangeKind,
}

/// The memory map handed to the kernel of a machine with `size` bytes of RAM.
pub(crate) fn memory_map(size: u64) -> Vec<MemoryRange> {
    let ram = |start: u64, end: u64| MemoryRange {
        start,
        size: end.saturating_sub(start),
        kind: RangeKind::Ram,
    };
    let low_end = size.min(MMIO_HOLE);
    let mut map = vec![
        ram(0, LOW_MEMORY_END.min(low_end)),
        MemoryRange { start: ACPI_TABLES.0, size: ACPI_TABLES_SIZE, kind: RangeKind::AcpiTables },
        MemoryRange { start: BIOS.0, size: BIOS_SIZE, kind: RangeKind::Reserved },
        ram(HIGH_MEMORY.0, low_end),
    ];
    map.extend(ram_regions(size).get(1).map(|(start, rest)| ram(start.0, start.0 + rest)));
    map.retain(|range| range.size > 0);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_leaves_the_hole_free() {
        assert_eq!(ram_regions(256 << 20), [(GuestAddress(0), 256 << 20)]);
        assert_eq!(ram_regions(3 << 30), [(GuestAddress(0), 3 << 30)]);
        assert_eq!(
            ram_regions(5 << 30),
            [(GuestAddress(0), 3 << 30), (GuestAddress(4 << 30), 2 << 30)]
        );
    }

    #[test]
    fn memory_map_is_sorted_disjoint_and_within_ram() {
        for size in [2 << 20, 256 << 20, 3 << 30, (3 << 30) + 4096, 64 << 30] {
            let regions = ram_regions(size);
            let mut end = 0;
            for range in memory_map(size) {
                assert!(range.start >= end, "{range:?}");
                end = range.start + range.size;
                assert!(
                    regions
                        .iter()
                        .any(|(start, len)| range.start >= start.0 && end <= start.0 + len),
                    "{range:?} of {size:#x}"
                );
            }
            assert_eq!(end, regions.last().map(|(start, len)| start.0 + len).unwrap());
        }
    }

    #[test]
    fn devices_fit_into_the_hole() {
        let last = virtio_mmio_address(VIRTIO_MMIO_MAX_DEVICES - 1).0 + VIRTIO_MMIO_SIZE;
        assert!(VIRTIO_MMIO_BASE >= MMIO_HOLE && last < u64::from(IO_APIC));
        assert_eq!(virtio_mmio_gsi(VIRTIO_MMIO_MAX_DEVICES - 1), 23);
        assert_eq!(
            virtio_mmio_parameters(2),
            "virtio_mmio.device=4K@0xd0000000:10 virtio_mmio.device=4K@0xd0001000:11"
        );
    }
}
