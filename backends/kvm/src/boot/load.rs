//! Puts a kernel, its initramfs and its command line into guest memory.

use std::ops::Range;

use linux_loader::loader::bootparam::setup_header;
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryError};
use vmoon_core::{BootSource, Code, Error, Result};

use super::bzimage::BzImage;
use super::elf::{Elf, Segment};
use super::initrd::check_initrd;
use super::recognise::{KernelFormat, file_error, recognise_kernel};
use super::registers::Entry;
use super::{layout, pvh, tables, zero_page};

/// The highest address of an initramfs for kernels that do not name one (`initrd_addr_max`).
const INITRD_MAX: u64 = 0x7fff_ffff;

/// How to enter the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum EntryProtocol {
    /// A bzImage by the 64-bit protocol, an ELF file by PVH where it has the note.
    #[default]
    Auto,
    /// Linux's 64-bit protocol: the ELF file's entry, or the bzImage's.
    Linux64,
    /// PVH, by the ELF file's note.
    Pvh,
}

/// What [`load`] needs beside the files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadOptions<'a> {
    /// How to enter the kernel.
    pub protocol: EntryProtocol,
    /// The whole command line, the backend's own parameters included.
    pub cmdline: &'a str,
    /// Bytes of RAM, laid out as in [`layout::ram_regions`].
    pub ram_size: u64,
    /// Where the ACPI tables begin, if there are any.
    pub rsdp: Option<GuestAddress>,
}

/// Where things ended up; what the kernel is told.
#[derive(Debug)]
pub(super) struct Placement {
    pub initrd: Option<Range<u64>>,
    pub ram_size: u64,
    pub rsdp: Option<GuestAddress>,
}

/// A kernel, checked, in the form in which it is loaded.
struct Plan<'a> {
    segments: Vec<Segment<'a>>,
    /// The first address after the memory that the kernel needs to start.
    end: u64,
    entry: Entry,
    header: Option<setup_header>,
}

/// Loads `source` and returns how to enter it. Nothing is written before all is checked.
///
/// # Errors
/// `vm.spec`, naming the file, when a file is not what it should be or does not fit.
pub(crate) fn load<M: GuestMemory>(
    memory: &M,
    source: &BootSource,
    options: &LoadOptions<'_>,
) -> Result<Entry> {
    let path = source.kernel.origin();
    let bytes = source.kernel.bytes();
    let plan = match recognise_kernel(path, bytes)? {
        KernelFormat::Elf => plan_elf(source, options.protocol)?,
        KernelFormat::BzImage => plan_bzimage(source, options.protocol)?,
    };
    check_kernel_fits(source, &plan, options)?;
    let initrd = place_initrd(source, &plan, options)?;
    let cmdline = command_line(options.cmdline, plan.header)?;

    let placement = Placement { initrd, ram_size: options.ram_size, rsdp: options.rsdp };
    write(memory, source, &plan, &cmdline, &placement).map_err(|error| {
        Error::new(Code::VmSpec, format!("kernel {} cannot be loaded", path.display()))
            .with_source(error)
    })?;
    Ok(plan.entry)
}

fn plan_bzimage(source: &BootSource, protocol: EntryProtocol) -> Result<Plan<'_>> {
    let path = source.kernel.origin();
    let image = BzImage::parse(path, source.kernel.bytes())?;
    if protocol == EntryProtocol::Pvh {
        return Err(no_entry(source, "PVH"));
    }
    let (end, address) = image.memory_end().zip(image.entry()).ok_or_else(|| {
        file_error(path, format!("kernel {} is damaged: its addresses overflow", path.display()))
    })?;
    let segment =
        Segment { address: image.load_address(), bytes: image.code, size: image.code.len() as u64 };
    Ok(Plan {
        segments: vec![segment],
        end,
        entry: Entry::Linux64 { address },
        header: Some(image.header),
    })
}

fn plan_elf(source: &BootSource, protocol: EntryProtocol) -> Result<Plan<'_>> {
    let elf = Elf::parse(source.kernel.origin(), source.kernel.bytes())?;
    let linux = elf.linux_entry().map(|address| Entry::Linux64 { address });
    let pvh = elf.pvh_entry.map(|address| Entry::Pvh { address });
    let entry = match protocol {
        EntryProtocol::Auto => pvh.or(linux).ok_or_else(|| no_entry(source, "usable"))?,
        EntryProtocol::Linux64 => linux.ok_or_else(|| no_entry(source, "64-bit"))?,
        EntryProtocol::Pvh => pvh.ok_or_else(|| no_entry(source, "PVH"))?,
    };
    Ok(Plan { end: elf.end(), segments: elf.segments, entry, header: None })
}

fn no_entry(source: &BootSource, what: &str) -> Error {
    let path = source.kernel.origin();
    file_error(path, format!("kernel {} has no {what} entry point", path.display()))
        .with_hint("an ordinary program is not a kernel; give a vmlinux or a bzImage")
}

fn check_kernel_fits(
    source: &BootSource,
    plan: &Plan<'_>,
    options: &LoadOptions<'_>,
) -> Result<()> {
    let path = source.kernel.origin();
    let name = path.display();
    let low_ram = options.ram_size.min(layout::MMIO_HOLE);
    if plan.segments.iter().any(|segment| segment.address < layout::HIGH_MEMORY.0) {
        let limit = layout::HIGH_MEMORY.0;
        return Err(file_error(
            path,
            format!("kernel {name} wants to be loaded below {limit:#x}, where vmoon puts tables"),
        ));
    }
    if plan.end > low_ram {
        return Err(file_error(
            path,
            format!(
                "kernel {name} does not fit into {} of memory: it needs at least {}",
                mebibytes(low_ram),
                mebibytes(plan.end)
            ),
        )
        .with_hint(format!("give the machine more than {} of memory", mebibytes(plan.end))));
    }
    Ok(())
}

/// Places the initramfs as high as the kernel can take it.
fn place_initrd(
    source: &BootSource,
    plan: &Plan<'_>,
    options: &LoadOptions<'_>,
) -> Result<Option<Range<u64>>> {
    let Some(initrd) = &source.initrd else { return Ok(None) };
    check_initrd(initrd.origin(), initrd.bytes())?;
    let size = initrd.bytes().len() as u64;
    let highest = plan.header.map_or(INITRD_MAX, |header| header.initrd_addr_max.into());
    let ceiling = options.ram_size.min(layout::MMIO_HOLE).min(highest.saturating_add(1));
    let start = ceiling.checked_sub(size).map(|start| start & !0xfff);
    let Some(start) = start.filter(|start| *start >= plan.end.next_multiple_of(0x1000)) else {
        let needed = plan.end.saturating_add(size);
        return Err(file_error(
            initrd.origin(),
            format!(
                "initrd of {} does not fit into {} of memory beside the kernel",
                mebibytes(size),
                mebibytes(ceiling)
            ),
        )
        .with_hint(format!(
            "give the machine well over {} of memory: the initramfs is also unpacked",
            mebibytes(needed)
        )));
    };
    Ok(Some(start..start + size))
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn command_line(cmdline: &str, header: Option<setup_header>) -> Result<Vec<u8>> {
    let limit = header
        .map(|header| usize::try_from(header.cmdline_size).unwrap_or(usize::MAX))
        .filter(|limit| *limit > 0)
        .unwrap_or(usize::MAX)
        .min(layout::COMMAND_LINE_SIZE - 1);
    if cmdline.len() > limit {
        return Err(Error::new(
            Code::VmSpec,
            format!("the command line has {} bytes; the kernel takes {limit}", cmdline.len()),
        )
        .with_hint("shorten cmdline"));
    }
    if let Some(bad) = cmdline.chars().find(|c| *c == '\0' || *c == '\n') {
        return Err(Error::new(Code::VmSpec, format!("the command line contains {bad:?}")));
    }
    Ok([cmdline.as_bytes(), b"\0"].concat())
}

fn write<M: GuestMemory>(
    memory: &M,
    source: &BootSource,
    plan: &Plan<'_>,
    cmdline: &[u8],
    placement: &Placement,
) -> Result<(), GuestMemoryError> {
    for segment in &plan.segments {
        memory.write_slice(segment.bytes, GuestAddress(segment.address))?;
        // Memory is not fresh when a machine starts a second time.
        zero(memory, segment.address + segment.bytes.len() as u64..segment.end())?;
    }
    if let (Some(initrd), Some(range)) = (&source.initrd, &placement.initrd) {
        memory.write_slice(initrd.bytes(), GuestAddress(range.start))?;
    }
    memory.write_slice(cmdline, layout::COMMAND_LINE)?;
    tables::write_bios(memory)?;
    match plan.entry {
        Entry::Linux64 { .. } => {
            zero_page::write(memory, plan.header, placement)?;
            tables::write_page_tables(memory)?;
            tables::write_gdt(memory, true)
        }
        Entry::Pvh { .. } => {
            pvh::write(memory, placement)?;
            tables::write_gdt(memory, false)
        }
    }
}

fn zero<M: GuestMemory>(memory: &M, range: Range<u64>) -> Result<(), GuestMemoryError> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let mut address = range.start;
    while address < range.end {
        let length = (range.end - address).min(ZEROS.len() as u64);
        memory.write_slice(
            ZEROS.get(..usize::try_from(length).unwrap_or_default()).unwrap_or_default(),
            GuestAddress(address),
        )?;
        address += length;
    }
    Ok(())
}
