//! The zero page of Linux's boot protocol (`Documentation/arch/x86/zero-page.rst`).

use linux_loader::loader::bootparam::{LOADED_HIGH, boot_e820_entry, boot_params, setup_header};
use vm_memory::{Bytes, GuestMemory, GuestMemoryResult};

use super::layout;
use super::load::Placement;

/// `type_of_loader` of a loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;
const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
const PROTOCOL_2_15: u16 = 0x020f;

/// The setup header for an ELF kernel, which has none.
fn header_of_elf() -> setup_header {
    setup_header {
        boot_flag: BOOT_FLAG,
        header: HEADER_MAGIC,
        version: PROTOCOL_2_15,
        loadflags: LOADED_HIGH,
        kernel_alignment: 0x100_0000,
        ..setup_header::default()
    }
}

/// Writes the zero page. `header` is the bzImage's.
pub(super) fn write<M: GuestMemory>(
    memory: &M,
    header: Option<setup_header>,
    placement: &Placement,
) -> GuestMemoryResult<()> {
    let mut params =
        boot_params { hdr: header.unwrap_or_else(header_of_elf), ..Default::default() };
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.cmd_line_ptr = low_half(layout::COMMAND_LINE.0);
    if let Some(initrd) = &placement.initrd {
        params.hdr.ramdisk_image = low_half(initrd.start);
        params.hdr.ramdisk_size = low_half(initrd.end - initrd.start);
    }
    params.acpi_rsdp_addr = placement.rsdp.map_or(0, |rsdp| rsdp.0);
    let map = layout::memory_map(placement.ram_size);
    for (entry, range) in params.e820_table.iter_mut().zip(&map) {
        *entry =
            boot_e820_entry { addr: range.start, size: range.size, r#type: range.kind.number() };
        params.e820_entries += 1;
    }
    memory.write_obj(params, layout::ZERO_PAGE)
}

/// Addresses and sizes below 4 GiB, which all of these are.
fn low_half(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
