//! Page tables and descriptor table that the boot vCPU starts with, and a BIOS of nine bytes.

use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryResult};

use super::layout;
use crate::legacy::ports;

const PAGE: u64 = 0x1000;
const PRESENT_WRITABLE: u64 = 0b11;
const LARGE_PAGE: u64 = 1 << 7;
/// Page directories: each maps 1 GiB.
const DIRECTORIES: u64 = 4;

/// Selector of the code segment (`__BOOT_CS` of the Linux boot protocol).
pub(super) const CODE_SELECTOR: u16 = 0x10;
/// Selector of the data segment (`__BOOT_DS`).
pub(super) const DATA_SELECTOR: u16 = 0x18;
/// Selector of the task state segment.
pub(super) const TASK_SELECTOR: u16 = 0x20;

/// Entries of the GDT.
pub(super) const GDT_ENTRIES: usize = 5;

/// Maps the first 4 GiB to themselves with pages of 2 MiB.
pub(super) fn write_page_tables<M: GuestMemory>(memory: &M) -> GuestMemoryResult<()> {
    let top = layout::PAGE_TABLES.0;
    let pointers = top + PAGE;
    let directories = pointers + PAGE;
    memory.write_slice(&table(1, |_| pointers | PRESENT_WRITABLE), GuestAddress(top))?;
    let pointer_table = table(DIRECTORIES, |index| (directories + index * PAGE) | PRESENT_WRITABLE);
    memory.write_slice(&pointer_table, GuestAddress(pointers))?;
    for directory in 0..DIRECTORIES {
        let pages =
            table(512, |index| ((directory << 30) + (index << 21)) | PRESENT_WRITABLE | LARGE_PAGE);
        memory.write_slice(&pages, GuestAddress(directories + directory * PAGE))?;
    }
    Ok(())
}

/// One page of entries; those from `count` on are not present.
fn table(count: u64, entry: impl Fn(u64) -> u64) -> Vec<u8> {
    (0..512).flat_map(|index| if index < count { entry(index) } else { 0 }.to_le_bytes()).collect()
}

/// Flat segments for 64-bit (or 32-bit) code, data and a task.
pub(super) fn write_gdt<M: GuestMemory>(memory: &M, long_mode: bool) -> GuestMemoryResult<()> {
    // Access byte and flags as in the Intel manual, volume 3, section 3.4.5.
    let code = if long_mode { 0x00af_9b00_0000_ffff } else { 0x00cf_9b00_0000_ffff };
    let entries: [u64; GDT_ENTRIES] = [0, 0, code, 0x00cf_9300_0000_ffff, 0x0000_8b00_0000_0067];
    let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    memory.write_slice(&bytes, layout::GDT)
}

/// Makes the BIOS's entry reset the machine. Linux takes that way on a hardware-reduced platform
/// without EFI: it expects EFI to reset it, finds none, and starts the BIOS in real mode.
pub(super) fn write_bios<M: GuestMemory>(memory: &M) -> GuestMemoryResult<()> {
    const MOVE_TO_DX: u8 = 0xba;
    const MOVE_TO_AL: u8 = 0xb0;
    const OUT_DX_AL: u8 = 0xee;
    const HALT: u8 = 0xf4;
    const JUMP_BACK_TO_HALT: [u8; 2] = [0xeb, 0xfd];
    let [low, high] = ports::RESET.to_le_bytes();
    let write = [MOVE_TO_DX, low, high, MOVE_TO_AL, ports::RESET_VALUE, OUT_DX_AL, HALT];
    let code = [&write[..], &JUMP_BACK_TO_HALT].concat();
    memory.write_slice(&code, layout::BIOS_RESET)
}
