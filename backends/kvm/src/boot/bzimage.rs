//! Reads a bzImage (Linux's `Documentation/arch/x86/boot.rst`, boot protocol 2.12 and later).

use std::path::Path;

use linux_loader::loader::bootparam::setup_header;
use vm_memory::ByteValued;
use vmoon_core::{Error, Result};

use super::bytes::array;
use super::recognise::file_error;

/// Where the setup header begins in the file and in the zero page.
const SETUP_HEADER: usize = 0x1f1;
/// The operand of the jump before `HdrS`, which says where the header ends.
const JUMP: usize = 0x201;
/// The first protocol with the 64-bit entry flag (`xloadflags`).
const PROTOCOL_2_12: u16 = 0x020c;
/// `xloadflags`: there is a 64-bit entry at 0x200.
const XLF_KERNEL_64: u16 = 1;
/// Offset of the 64-bit entry in the protected-mode code.
const ENTRY_64: u64 = 0x200;

/// A bzImage whose header and size have been checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct BzImage<'a> {
    /// The setup header as the kernel's build wrote it.
    pub header: setup_header,
    /// The protected-mode code: what is loaded.
    pub code: &'a [u8],
}

impl<'a> BzImage<'a> {
    /// Checks a file that has been recognised as a bzImage.
    pub(super) fn parse(path: &Path, bytes: &'a [u8]) -> Result<Self> {
        let header = read_header(bytes).ok_or_else(|| {
            let length = bytes.len();
            truncated(path, &format!("{length} bytes, which end within its header"))
        })?;
        let (version, flags, sectors, size) =
            (header.version, header.xloadflags, header.setup_sects, header.syssize);
        if version < PROTOCOL_2_12 || flags & XLF_KERNEL_64 == 0 {
            return Err(file_error(
                path,
                format!("kernel {} has no 64-bit entry point", path.display()),
            )
            .with_hint("give a 64-bit kernel of Linux 3.8 or later"));
        }
        // A count of zero means four (boot.rst, "setup_sects").
        let setup = (u64::from(if sectors == 0 { 4 } else { sectors }) + 1) * 512;
        let expected = setup + u64::from(size) * 16;
        // The code's last 16-byte paragraph need not be whole.
        if (bytes.len() as u64) + 15 < expected || size == 0 {
            return Err(truncated(
                path,
                &format!("{} bytes where its header says {expected}", bytes.len()),
            )
            .with_detail("expected_bytes", expected));
        }
        let start = usize::try_from(setup).unwrap_or(usize::MAX);
        let end = usize::try_from(expected).unwrap_or(usize::MAX).min(bytes.len());
        let code = bytes.get(start..end).unwrap_or_default();
        Ok(Self { header, code })
    }

    /// Where the code is loaded: the address that the kernel prefers.
    pub(super) fn load_address(&self) -> u64 {
        self.header.pref_address
    }

    /// The first address after the memory that the kernel needs to unpack itself.
    pub(super) fn memory_end(&self) -> Option<u64> {
        let needed = u64::from(self.header.init_size).max(self.code.len() as u64);
        self.load_address().checked_add(needed)
    }

    /// The 64-bit entry, where the code reaches that far.
    pub(super) fn entry(&self) -> Option<u64> {
        let entry = self.load_address().checked_add(ENTRY_64)?;
        (self.code.len() as u64 > ENTRY_64).then_some(entry)
    }
}

fn truncated(path: &Path, what: &str) -> Error {
    file_error(path, format!("kernel {} is truncated: {what}", path.display()))
        .with_hint("copy the file again")
}

/// The setup header, as long as the file says that it is; the rest is zero.
fn read_header(bytes: &[u8]) -> Option<setup_header> {
    let [length] = array::<1>(bytes, JUMP)?;
    // The jump is relative to the byte after it.
    let end = (JUMP + 1 + usize::from(length)).min(SETUP_HEADER + size_of::<setup_header>());
    let present = bytes.get(SETUP_HEADER..end)?;
    let mut header = setup_header::default();
    header.as_mut_slice().get_mut(..present.len())?.copy_from_slice(present);
    Some(header)
}
