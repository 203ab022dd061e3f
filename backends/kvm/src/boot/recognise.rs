//! Says what a file is that was given as a kernel, so that a wrong one is named for what it is.

use std::path::Path;

use vmoon_core::{Code, Error};

use super::bytes::{u16_at, u32_at};

/// Where a Linux image for arm64 or RISC-V has its magic number.
const IMAGE_MAGIC: usize = 0x38;
/// Where a bzImage has `HdrS`.
const SETUP_MAGIC: usize = 0x202;
/// Where a boot sector has its signature.
const BOOT_SIGNATURE: usize = 0x1fe;

const ELF_CLASS_64: u8 = 2;
const ELF_LITTLE_ENDIAN: u8 = 1;
const ELF_RELOCATABLE: u16 = 1;
const MACHINE_X86_64: u16 = 62;

/// The kinds of kernel that can be booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KernelFormat {
    /// Linux's own format, with the kernel compressed.
    BzImage,
    /// A 64-bit ELF executable: `vmlinux`, or the built-in guest.
    Elf,
}

/// An error about a file given as kernel or initramfs.
pub(super) fn file_error(path: &Path, message: impl Into<String>) -> Error {
    Error::new(Code::VmSpec, message).with_detail("file", path.display().to_string())
}

/// What `bytes` are, or an error that says what they are instead.
pub(crate) fn recognise_kernel(path: &Path, bytes: &[u8]) -> Result<KernelFormat, Error> {
    if bytes.get(SETUP_MAGIC..).is_some_and(|rest| rest.starts_with(b"HdrS")) {
        return Ok(KernelFormat::BzImage);
    }
    let name = path.display();
    if bytes.is_empty() {
        return Err(file_error(path, format!("kernel {name} is empty"))
            .with_hint("give a bzImage (vmlinuz) or an ELF kernel (vmlinux) for x86-64"));
    }
    if bytes.starts_with(b"\x7fELF") {
        return match foreign_elf(bytes) {
            None => Ok(KernelFormat::Elf),
            Some(what) => Err(not_a_kernel(path, what)),
        };
    }
    Err(match other_format(bytes) {
        Some(what) => not_a_kernel(path, what),
        None if bytes.len() < SETUP_MAGIC + 4 && looks_like_setup(bytes) => file_error(
            path,
            format!(
                "kernel {name} is truncated: {} bytes, not even the whole boot sector",
                bytes.len()
            ),
        )
        .with_hint("copy the file again"),
        None => not_a_kernel(path, "neither a bzImage nor an ELF file"),
    })
}

fn not_a_kernel(path: &Path, what: &str) -> Error {
    file_error(path, format!("kernel {} is {what}", path.display()))
        .with_hint("give a bzImage (vmlinuz) or an ELF kernel (vmlinux) for x86-64")
}

/// Why an ELF file is not for us, if it is not.
fn foreign_elf(bytes: &[u8]) -> Option<&'static str> {
    if bytes.get(4).is_some_and(|class| *class != ELF_CLASS_64) {
        return Some("a 32-bit ELF file, not a kernel for x86-64");
    }
    if bytes.get(5).is_some_and(|order| *order != ELF_LITTLE_ENDIAN) {
        return Some("a big-endian ELF file, not a kernel for x86-64");
    }
    match u16_at(bytes, 18) {
        Some(MACHINE_X86_64) | None => {}
        Some(183) => return Some("an ARM64 kernel or program, not a kernel for x86-64"),
        Some(243) => return Some("a RISC-V kernel or program, not a kernel for x86-64"),
        Some(_) => return Some("an ELF file for another processor, not a kernel for x86-64"),
    }
    (u16_at(bytes, 16) == Some(ELF_RELOCATABLE))
        .then_some("an ELF object file or kernel module, not a kernel")
}

/// The beginning of a bzImage of which too little is left to hold its magic number.
fn looks_like_setup(bytes: &[u8]) -> bool {
    bytes.starts_with(b"MZ") || u16_at(bytes, BOOT_SIGNATURE) == Some(0xaa55)
}

/// Formats that people hand over by mistake.
fn other_format(bytes: &[u8]) -> Option<&'static str> {
    if bytes.get(IMAGE_MAGIC..).is_some_and(|rest| rest.starts_with(b"ARM\x64")) {
        return Some("an ARM64 kernel, not one for x86-64");
    }
    if bytes.get(IMAGE_MAGIC..).is_some_and(|rest| rest.starts_with(b"RSC\x05")) {
        return Some("a RISC-V kernel, not one for x86-64");
    }
    if bytes.starts_with(b"MZ") && u32_at(bytes, 4) == Some(0x676d_697a) {
        return Some("a compressed EFI kernel of another architecture, not one for x86-64");
    }
    let known: [(&[u8], &str); 12] = [
        (b"070701", "an initramfs (cpio archive), not a kernel"),
        (b"070702", "an initramfs (cpio archive), not a kernel"),
        (b"\x1f\x8b", "a gzip file (an initramfs, or a compressed kernel of another kind)"),
        (b"\xfd7zXZ\0", "an xz file, not a kernel"),
        (b"\x28\xb5\x2f\xfd", "a zstd file (perhaps an initramfs), not a kernel"),
        (b"\x02\x21\x4c\x18", "an lz4 file (perhaps an initramfs), not a kernel"),
        (b"\x04\x22\x4d\x18", "an lz4 file (perhaps an initramfs), not a kernel"),
        (b"BZh", "a bzip2 file, not a kernel"),
        (b"QFI\xfb", "a qcow2 disk image, not a kernel"),
        (b"#!", "a script, not a kernel"),
        (b"!<arch>", "an archive or package, not a kernel"),
        (b"PK\x03\x04", "a zip file, not a kernel"),
    ];
    known.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, what)| *what).or_else(|| {
        (bytes.len() > SETUP_MAGIC && u16_at(bytes, BOOT_SIGNATURE) == Some(0xaa55))
            .then_some("a disk image or boot sector, not a kernel")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: &[u8]) -> String {
        let error = recognise_kernel(Path::new("k"), bytes).unwrap_err();
        assert_eq!(error.code(), Code::VmSpec);
        assert!(error.hint().is_some());
        error.message().to_owned()
    }

    #[test]
    fn wrong_files_are_named_for_what_they_are() {
        let mut arm = vec![0; 4096];
        arm[..2].copy_from_slice(b"MZ");
        arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
        assert!(message(&arm).contains("ARM64"));
        assert!(message(b"").contains("empty"));
        assert!(message(b"\x1f\x8b\x08\0").contains("gzip"));
        assert!(message(b"070701000").contains("initramfs"));
        assert!(message(b"hello").contains("neither"));
        assert!(message(b"MZ\0\0").contains("truncated"));
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[16] = 2;
        elf[18] = 183;
        assert!(message(&elf).contains("ARM64"));
        elf[18] = 62;
        assert_eq!(recognise_kernel(Path::new("k"), &elf).unwrap(), KernelFormat::Elf);
        elf[16] = 1;
        assert!(message(&elf).contains("module"));
    }
}
