//! The start info of the PVH boot protocol (Xen's `docs/misc/pvh.pandoc`).

use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryResult};

use super::layout;
use super::load::Placement;

/// Version 1 added the memory map.
const VERSION: u32 = 1;

/// Writes the start info, its module list and memory map.
pub(super) fn write<M: GuestMemory>(memory: &M, placement: &Placement) -> GuestMemoryResult<()> {
    let map = layout::memory_map(placement.ram_size);
    let mut info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: VERSION,
        cmdline_paddr: layout::COMMAND_LINE.0,
        rsdp_paddr: placement.rsdp.map_or(0, |rsdp| rsdp.0),
        memmap_paddr: layout::PVH_MEMORY_MAP.0,
        memmap_entries: u32::try_from(map.len()).unwrap_or(u32::MAX),
        ..hvm_start_info::default()
    };
    if let Some(initrd) = &placement.initrd {
        let module = hvm_modlist_entry {
            paddr: initrd.start,
            size: initrd.end - initrd.start,
            ..hvm_modlist_entry::default()
        };
        memory.write_obj(module, layout::PVH_MODULES)?;
        info.nr_modules = 1;
        info.modlist_paddr = layout::PVH_MODULES.0;
    }
    for (index, range) in (0u64..).zip(&map) {
        let entry = hvm_memmap_table_entry {
            addr: range.start,
            size: range.size,
            type_: range.kind.number(),
            reserved: 0,
        };
        let offset = index * size_of::<hvm_memmap_table_entry>() as u64;
        memory.write_obj(entry, GuestAddress(layout::PVH_MEMORY_MAP.0 + offset))?;
    }
    memory.write_obj(info, layout::PVH_START_INFO)
}
