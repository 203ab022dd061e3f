//! Boots the built-in guest in QEMU: its image is laid into RAM from here, and the processor finds
//! a few instructions of firmware that enter it.
//!
//! QEMU's own way (`-kernel` with an ELF file) would lay the image down again at every reset, and
//! each restore begins with one. A Linux kernel is started by QEMU's firmware instead, which copies
//! it once.

use std::io::Cursor;

use linux_loader::loader::KernelLoader;
use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_start_info,
};
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use vm_memory::{Bytes, GuestAddress};
use vmoon_core::spec::Image;
use vmoon_core::{Code, Error, Result};

use crate::memory::{BELOW_4_GIB, Ram};

/// The size of the firmware: QEMU wants a multiple of 64 KiB. It ends at 4 GiB.
const SIZE: usize = 64 << 10;
/// Where the processor begins, from the firmware's start.
const RESET_VECTOR: usize = SIZE - 16;
/// Where the instructions are, from the firmware's start.
const CODE: usize = SIZE - 256;
/// Where the descriptors of flat segments are, from the firmware's start.
const DESCRIPTORS: usize = SIZE - 128;

/// Where the PVH start info is (Xen's `docs/misc/pvh.pandoc`), its memory map, and the command
/// line: below the guest's image, in memory that it takes for free once it has read them.
const START_INFO: u32 = 0x6000;
const MEMORY_MAP: u64 = 0x7000;
const COMMAND_LINE: u64 = 0x2_0000;
/// The command line with its end fits from there to the legacy hole.
const LONGEST_COMMAND_LINE: usize = 4095;

/// Lays the guest down in RAM; the address to enter it at.
pub(crate) fn load(ram: &Ram, image: &Image, command_line: &str) -> Result<u32> {
    let bad = |what: String| {
        Error::new(Code::VmSpec, format!("the kernel {} {what}", image.origin().display()))
    };
    let memory = ram.memory();
    let loaded =
        Elf::load(memory, None, &mut Cursor::new(image.bytes()), None).map_err(|error| {
            bad("does not fit into the machine's memory".to_owned()).with_source(error)
        })?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        return Err(bad("has no PVH entry".to_owned()));
    };
    if command_line.len() > LONGEST_COMMAND_LINE {
        return Err(bad(format!("takes at most {LONGEST_COMMAND_LINE} bytes of command line"))
            .with_hint("shorten `cmdline`"));
    }
    let size = ram.pages() as u64 * crate::memory::PAGE as u64;
    let low = size.min(BELOW_4_GIB);
    let mut map = vec![(0, 0x9_fc00), (1 << 20, low.saturating_sub(1 << 20))];
    if size > low {
        map.push((1 << 32, size - low));
    }
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: 1,
        cmdline_paddr: COMMAND_LINE,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: u32::try_from(map.len()).unwrap_or(u32::MAX),
        ..hvm_start_info::default()
    };
    let write = || -> vm_memory::GuestMemoryResult<()> {
        memory.write_slice(command_line.as_bytes(), GuestAddress(COMMAND_LINE))?;
        memory.write_obj(0_u8, GuestAddress(COMMAND_LINE + command_line.len() as u64))?;
        for (index, &(addr, size)) in (0_u64..).zip(&map) {
            let entry = hvm_memmap_table_entry { addr, size, type_: 1, reserved: 0 };
            let offset = index * size_of::<hvm_memmap_table_entry>() as u64;
            memory.write_obj(entry, GuestAddress(MEMORY_MAP + offset))?;
        }
        memory.write_obj(info, GuestAddress(START_INFO.into()))
    };
    write().map_err(|error| bad("needs more memory".to_owned()).with_source(error))?;
    u32::try_from(entry.0).map_err(|_| bad("has its PVH entry above 4 GiB".to_owned()))
}

/// The firmware: from the reset vector in real mode into flat 32-bit protected mode, as PVH wants
/// it, and on to `entry`.
#[allow(clippy::cast_possible_truncation, reason = "offsets in 64 KiB")]
pub(crate) fn image(entry: u32) -> Vec<u8> {
    let base = 0_u32.wrapping_sub(SIZE as u32);
    let at = |offset: usize| base + offset as u32;
    let mut bytes = vec![0; SIZE];
    let mut put = |offset: usize, piece: &[u8]| {
        bytes[offset..offset + piece.len()].copy_from_slice(piece);
    };
    // Null, code (32 bits, flat), data (flat); then what LGDT reads: the last byte's offset, and
    // the address.
    put(DESCRIPTORS + 8, &0x00cf_9b00_0000_ffff_u64.to_le_bytes());
    put(DESCRIPTORS + 16, &0x00cf_9300_0000_ffff_u64.to_le_bytes());
    put(DESCRIPTORS + 24, &23_u16.to_le_bytes());
    put(DESCRIPTORS + 26, &at(DESCRIPTORS).to_le_bytes());

    let mut code = vec![0xfa]; // cli
    // lgdt cs:[DESCRIPTORS + 24], all 32 bits of it; CS begins with the firmware.
    code.extend([0x66, 0x2e, 0x0f, 0x01, 0x16]);
    code.extend((DESCRIPTORS as u16 + 24).to_le_bytes());
    code.extend([0x0f, 0x20, 0xc0]); // mov eax, cr0
    code.extend([0x0c, 0x01]); // or al, 1
    code.extend([0x0f, 0x22, 0xc0]); // mov cr0, eax
    let protected = at(CODE) + code.len() as u32 + 8;
    code.extend([0x66, 0xea]); // jmp 8:protected
    code.extend(protected.to_le_bytes());
    code.extend([8, 0]);
    code.extend([0xb8, 16, 0, 0, 0]); // mov eax, 16
    for segment in [0xd8, 0xc0, 0xd0, 0xe0, 0xe8] {
        code.extend([0x8e, segment]); // mov ds, es, ss, fs, gs, eax
    }
    code.push(0xbb); // mov ebx, START_INFO
    code.extend(START_INFO.to_le_bytes());
    code.push(0xb8); // mov eax, entry
    code.extend(entry.to_le_bytes());
    code.extend([0xff, 0xe0]); // jmp eax
    assert!(CODE + code.len() <= DESCRIPTORS, "the code ends before the descriptors");
    put(CODE, &code);
    // jmp CODE, relative to the instruction's end.
    let back = (CODE as u16).wrapping_sub(RESET_VECTOR as u16 + 3);
    put(RESET_VECTOR, &[0xe9]);
    put(RESET_VECTOR + 1, &back.to_le_bytes());
    bytes
}
