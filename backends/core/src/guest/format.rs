//! What a kernel's file is, and which processor it is for.

use std::path::Path;

use crate::error::{Code, Error, Result};

/// Offset and magic of a Linux boot sector's setup header (Linux
/// Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header").
const BZIMAGE: (usize, &[u8]) = (0x202, b"HdrS");
/// Offset and magic of an arm64 kernel's header (Linux Documentation/arch/arm64/booting.rst,
/// "Call the kernel image").
const ARM64_IMAGE: (usize, &[u8]) = (0x38, b"ARM\x64");
/// Offset and magic of a compressed kernel in an EFI program (Linux
/// drivers/firmware/efi/libstub/zboot-header.S).
const EFI_ZBOOT: (usize, &[u8]) = (4, b"zimg");

/// `e_machine` of ELF files for x86-64 and for arm64 (System V ABI, "ELF Header").
const ELF_X86_64: u16 = 62;
const ELF_AARCH64: u16 = 183;

/// The `e_machine` of programs for this host's processor, which is also the guest's.
pub(super) const ELF_NATIVE: u16 =
    if cfg!(target_arch = "aarch64") { ELF_AARCH64 } else { ELF_X86_64 };

/// A file that a kernel may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelFormat {
    /// A compressed x86 kernel with a boot sector.
    BzImage,
    /// An uncompressed arm64 kernel.
    Arm64Image,
    /// An ELF file, and its `e_machine`.
    Elf(u16),
}

impl KernelFormat {
    /// The format of these bytes, if they are a kernel's.
    pub fn recognise(bytes: &[u8]) -> Option<Self> {
        if has(bytes, BZIMAGE) {
            Some(Self::BzImage)
        } else if has(bytes, ARM64_IMAGE) {
            Some(Self::Arm64Image)
        } else if bytes.starts_with(b"\x7fELF") {
            let machine = bytes.get(18..20).and_then(|raw| raw.first_chunk().copied());
            Some(Self::Elf(machine.map_or(0, u16::from_le_bytes)))
        } else {
            None
        }
    }

    /// The processor that it is for, as `std::env::consts::ARCH` names it; none where it does not
    /// say.
    fn architecture(self) -> Option<&'static str> {
        match self {
            Self::BzImage | Self::Elf(ELF_X86_64) => Some("x86_64"),
            Self::Arm64Image | Self::Elf(ELF_AARCH64) => Some("aarch64"),
            Self::Elf(_) => None,
        }
    }
}

fn has(bytes: &[u8], (offset, magic): (usize, &[u8])) -> bool {
    bytes.get(offset..offset + magic.len()) == Some(magic)
}

/// Refuses what is not a kernel, and a kernel for another processor than `host`, an architecture
/// as `std::env::consts::ARCH` names it.
///
/// # Errors
/// `vm.spec`, with what to give instead.
pub(super) fn check(path: &Path, bytes: &[u8], host: &str) -> Result<()> {
    let refused = |what: String, hint: &str| {
        Err(Error::new(Code::VmSpec, format!("kernel {} {what}", path.display()))
            .with_hint(hint)
            .with_detail("path", path.display().to_string()))
    };
    let Some(format) = KernelFormat::recognise(bytes) else {
        return refused(
            "is neither a bzImage, an arm64 Image nor an ELF file".to_owned(),
            unpacked(bytes, host),
        );
    };
    match format.architecture() {
        Some(found) if found != host => refused(
            format!("is for {}, and this host's guests are {}", name(found), name(host)),
            if host == "aarch64" {
                "give an arm64 kernel: the file `Image` of an arm64 build, or the vmlinuz of a \
                 distribution's arm64 package, unpacked; x86-64 programs (not kernels) run in such \
                 a guest with rosetta = true"
            } else {
                "give an x86-64 kernel: the file that a distribution for amd64 installs as \
                 /boot/vmlinuz-VERSION"
            },
        ),
        _ => Ok(()),
    }
}

/// What to do about a file that is not a kernel as it is.
fn unpacked(bytes: &[u8], host: &str) -> &'static str {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        "it is compressed with gzip: unpack it (gunzip < vmlinuz > Image), or give the bzImage that \
         the package installs in /boot"
    } else if bytes.starts_with(b"MZ") && has(bytes, EFI_ZBOOT) {
        "it is an EFI program around a compressed kernel: give the plain `Image` of the same build"
    } else if host == "aarch64" {
        "give an uncompressed arm64 kernel, the file that a build calls `Image`"
    } else {
        "give the file that a distribution installs as /boot/vmlinuz-VERSION, or a vmlinux"
    }
}

/// The name that people use.
fn name(architecture: &str) -> &str {
    match architecture {
        "x86_64" => "x86-64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with((offset, magic): (usize, &[u8])) -> Vec<u8> {
        let mut bytes = vec![0; 0x300];
        bytes[offset..offset + magic.len()].copy_from_slice(magic);
        bytes
    }

    fn elf(machine: u16) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(64, 0);
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes
    }

    fn refusal(bytes: &[u8], host: &str) -> String {
        let error = check(Path::new("kernel"), bytes, host).unwrap_err();
        assert_eq!(error.code(), Code::VmSpec);
        format!("{}; {}", error.message(), error.hint().unwrap())
    }

    #[test]
    fn kernels_are_recognised_with_their_processor() {
        for (bytes, host) in [
            (with(BZIMAGE), "x86_64"),
            (with(ARM64_IMAGE), "aarch64"),
            (elf(ELF_X86_64), "x86_64"),
            (elf(ELF_AARCH64), "aarch64"),
        ] {
            check(Path::new("kernel"), &bytes, host).unwrap();
        }
        assert_eq!(KernelFormat::recognise(&[0; 0x400]), None);
        assert_eq!(KernelFormat::recognise(b"\x7fELF"), Some(KernelFormat::Elf(0)));
    }

    #[test]
    fn a_kernel_for_another_processor_is_refused_with_words_that_help() {
        for bytes in [with(BZIMAGE), elf(ELF_X86_64)] {
            let words = refusal(&bytes, "aarch64");
            assert!(words.contains("for x86-64, and this host's guests are arm64"), "{words}");
            assert!(words.contains("Image"), "{words}");
        }
        for bytes in [with(ARM64_IMAGE), elf(ELF_AARCH64)] {
            let words = refusal(&bytes, "x86_64");
            assert!(words.contains("for arm64") && words.contains("amd64"), "{words}");
        }
    }

    #[test]
    fn what_must_be_unpacked_says_so() {
        assert!(refusal(&[0x1f, 0x8b, 8], "aarch64").contains("gunzip"));
        let mut zboot = with(EFI_ZBOOT);
        zboot[..2].copy_from_slice(b"MZ");
        assert!(refusal(&zboot, "aarch64").contains("EFI"));
        assert!(refusal(b"text", "aarch64").contains("Image"));
    }
}
