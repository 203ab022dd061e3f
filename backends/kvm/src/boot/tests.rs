//! Loading whole kernels, and files that are not.

use std::path::Path;
use std::sync::OnceLock;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmoon_core::spec::Image;
use vmoon_core::{BootSource, Code, Error};

use super::initrd::check_initrd;
use super::*;

type Memory = GuestMemoryMmap<()>;

fn memory(size: u64) -> Memory {
    let regions: Vec<_> = layout::ram_regions(size)
        .into_iter()
        .map(|(start, size)| (start, usize::try_from(size).unwrap()))
        .collect();
    Memory::from_ranges(&regions).unwrap()
}

fn source(kernel: &[u8], initrd: Option<&[u8]>) -> BootSource {
    BootSource {
        kernel: Image::read("kernel", kernel),
        initrd: initrd.map(|bytes| Image::read("initrd", bytes)),
        cmdline: "console=ttyS0".to_owned(),
    }
}

fn options(size: u64, protocol: EntryProtocol) -> LoadOptions<'static> {
    let rsdp = Some(layout::ACPI_TABLES);
    LoadOptions { protocol, cmdline: "console=ttyS0", ram_size: size, rsdp }
}

fn try_load(kernel: &[u8], initrd: Option<&[u8]>, size: u64) -> Result<(Entry, Memory), Error> {
    let memory = memory(size);
    let entry = load(&memory, &source(kernel, initrd), &options(size, EntryProtocol::Auto))?;
    Ok((entry, memory))
}

/// A bzImage whose code is one page.
fn bzimage() -> Vec<u8> {
    let mut file = vec![0; 1024 + 4096];
    file[0x1f1] = 1;
    file[0x1f4..0x1f8].copy_from_slice(&(4096u32 / 16).to_le_bytes());
    file[0x1fe..0x200].copy_from_slice(&0xaa55u16.to_le_bytes());
    file[0x201] = 0x6a;
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
    file[0x211] = 1;
    file[0x22c..0x230].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    file[0x236] = 1;
    file[0x238..0x23c].copy_from_slice(&2047u32.to_le_bytes());
    file[0x258..0x260].copy_from_slice(&0x100_0000u64.to_le_bytes());
    file[0x260..0x264].copy_from_slice(&0x10_0000u32.to_le_bytes());
    file
}

/// An initramfs of about `size` bytes with one file.
fn initramfs(size: usize) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, size) in [("data", size), ("TRAILER!!!", 0)] {
        archive.extend(b"070701");
        for index in 0..13 {
            let field = match index {
                6 => size,
                11 => name.len() + 1,
                _ => 0,
            };
            archive.extend(format!("{field:08x}").bytes());
        }
        archive.extend(name.bytes());
        archive.push(0);
        archive.resize(archive.len().next_multiple_of(4) + size.next_multiple_of(4), 0);
    }
    archive
}

#[test]
fn an_elf_kernel_is_entered_as_asked() {
    let kernel = elf::tests::sample(true);
    let memory = memory(16 << 20);
    let enter =
        |protocol| load(&memory, &source(&kernel, None), &options(16 << 20, protocol)).unwrap();
    // What a second start finds there must not matter.
    memory.write_slice(&[0xff; 32], GuestAddress(0x10_0000)).unwrap();
    assert_eq!(enter(EntryProtocol::Auto), Entry::Pvh { address: 0x10_0008 });
    assert_eq!(enter(EntryProtocol::Linux64), Entry::Linux64 { address: 0x10_0000 });
    let mut loaded = [0xff; 32];
    memory.read_slice(&mut loaded, GuestAddress(0x10_0000)).unwrap();
    assert_eq!((&loaded[..16], &loaded[16..]), (&[0x90; 16][..], &[0; 16][..]));
    let magic: u32 = memory.read_obj(layout::PVH_START_INFO).unwrap();
    assert_eq!(magic, 0x336e_c578);
    let mut cmdline = [0; 14];
    memory.read_slice(&mut cmdline, layout::COMMAND_LINE).unwrap();
    assert_eq!(&cmdline, b"console=ttyS0\0");

    let without = elf::tests::sample(false);
    let pvh = options(16 << 20, EntryProtocol::Pvh);
    let error = load(&memory, &source(&without, None), &pvh).unwrap_err();
    assert!(error.message().contains("no PVH entry"));
}

#[test]
fn a_bzimage_is_loaded_with_its_initramfs() {
    let kernel = bzimage();
    let (entry, memory) = try_load(&kernel, Some(&initramfs(5000)), 64 << 20).unwrap();
    assert_eq!(entry, Entry::Linux64 { address: 0x100_0200 });
    let zero_page = |offset: u64| -> u32 {
        memory.read_obj(GuestAddress(layout::ZERO_PAGE.0 + offset)).unwrap()
    };
    assert_eq!(zero_page(0x202), u32::from_le_bytes(*b"HdrS"));
    assert_eq!(zero_page(0x228), 0x2_0000);
    assert_eq!(zero_page(0x70), 0xe_0000);
    let (start, size) = (zero_page(0x218), zero_page(0x21c));
    assert_eq!(size as usize, initramfs(5000).len());
    assert!(start % 4096 == 0 && start + size <= 64 << 20 && start + size > (64 << 20) - 4096);
    let entries: u8 = memory.read_obj(GuestAddress(layout::ZERO_PAGE.0 + 0x1e8)).unwrap();
    assert_eq!(entries, 4);

    let pvh = options(64 << 20, EntryProtocol::Pvh);
    let error = load(&memory, &source(&kernel, None), &pvh).unwrap_err();
    assert!(error.message().contains("no PVH entry"));
}

#[test]
fn what_does_not_fit_says_how_much_is_needed() {
    let kernel = bzimage();
    let error = try_load(&kernel, None, 8 << 20).unwrap_err();
    assert_eq!(error.code(), Code::VmSpec);
    assert!(error.message().contains("needs at least 17 MiB"), "{error}");
    let error = try_load(&kernel, Some(&initramfs(80 << 20)), 64 << 20).unwrap_err();
    assert!(error.message().contains("does not fit into 64 MiB"), "{error}");
    assert!(error.message().starts_with("initrd of 81 MiB"), "{error}");
    let long = "x".repeat(2048);
    let options = LoadOptions { cmdline: &long, ..options(64 << 20, EntryProtocol::Auto) };
    let error = load(&memory(64 << 20), &source(&kernel, None), &options).unwrap_err();
    assert!(error.message().contains("2048 bytes; the kernel takes 2047"), "{error}");
}

#[test]
fn a_truncated_bzimage_says_how_long_it_should_be() {
    let kernel = bzimage();
    let error = try_load(&kernel[..3000], None, 64 << 20).unwrap_err();
    assert!(error.message().contains("3000 bytes where its header says 5120"), "{error}");
    assert_eq!(error.details()["expected_bytes"], 5120);
    for length in 0..kernel.len() - 15 {
        try_load(&kernel[..length], None, 2 << 20).unwrap_err();
    }
}

#[test]
fn addresses_that_overflow_are_errors() {
    for address in [u64::MAX, u64::MAX - 4200, u64::MAX - 0x20_0000] {
        let mut kernel = bzimage();
        kernel[0x258..0x260].copy_from_slice(&address.to_le_bytes());
        assert_eq!(try_load(&kernel, None, 64 << 20).unwrap_err().code(), Code::VmSpec);
    }
    // Code of one paragraph has no room for an entry.
    let mut kernel = bzimage();
    kernel[0x1f4] = 1;
    kernel[0x1f5] = 0;
    kernel[0x258..0x260].copy_from_slice(&(u64::MAX - 100).to_le_bytes());
    kernel[0x260..0x264].fill(0);
    let error = try_load(&kernel, None, 64 << 20).unwrap_err();
    assert!(error.message().contains("overflow"), "{error}");
}

/// The kernel of a Debian host, if this is one.
fn debian_kernel() -> Option<&'static [u8]> {
    static KERNEL: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    KERNEL
        .get_or_init(|| {
            let mut paths: Vec<_> = std::fs::read_dir("/boot")
                .ok()?
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| {
                    path.file_name()
                        .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
                })
                .collect();
            paths.sort();
            std::fs::read(paths.pop()?).ok()
        })
        .as_deref()
}

#[test]
fn a_distributions_kernel_is_accepted() {
    let Some(kernel) = debian_kernel() else { return };
    let (entry, _) = try_load(kernel, None, 256 << 20).unwrap();
    assert!(matches!(entry, Entry::Linux64 { .. }), "{entry:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_files_never_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..8192),
        shape in 0..4,
    ) {
        let magic: &[(usize, &[u8])] = match shape {
            0 => &[(0x202, b"HdrS"), (0x206, b"\x0f\x02"), (0x236, b"\x01")],
            1 => &[(0, b"\x7fELF\x02\x01"), (18, b"\x3e\0"), (54, b"\x38\0\x02\0")],
            2 => &[(0, b"070701")],
            _ => &[],
        };
        for (offset, magic) in magic {
            if let Some(place) = bytes.get_mut(*offset..offset + magic.len()) {
                place.copy_from_slice(magic);
            }
        }
        let _ = try_load(&bytes, None, 32 << 20);
        let _ = check_initrd(Path::new("i"), &bytes);
    }

    #[test]
    fn damaged_kernels_never_panic(
        flips in prop::collection::vec((0usize..0x400, any::<u8>()), 1..8),
        cut in 0usize..5120,
        elf in any::<bool>(),
    ) {
        let mut kernel = if elf { elf::tests::sample(true) } else { bzimage() };
        for (offset, value) in flips {
            if let Some(byte) = kernel.get_mut(offset) {
                *byte = value;
            }
        }
        kernel.truncate(cut.max(16));
        let memory = memory(32 << 20);
        let options = options(32 << 20, EntryProtocol::Auto);
        let _ = load(&memory, &source(&kernel, None), &options);
    }

    #[test]
    fn truncations_of_a_distributions_kernel_are_errors(length in 0usize..12 << 20) {
        if let Some(kernel) = debian_kernel() && length < kernel.len() / 2 {
            let error = try_load(&kernel[..length], None, 256 << 20).unwrap_err();
            prop_assert_eq!(error.code(), Code::VmSpec);
        }
    }
}
