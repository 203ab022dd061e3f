//! Checks a kernel before QEMU is given it: what QEMU says of a damaged file helps nobody.

use vmoon_core::spec::Image;
use vmoon_core::{Code, Error, Result};

/// Offset of the number of sectors of a bzImage's setup code, and what zero stands for (Linux
/// Documentation/arch/x86/boot.rst).
const SETUP_SECTORS: usize = 0x1f1;
const DEFAULT_SETUP_SECTORS: usize = 4;
const SECTOR: usize = 512;

const ELF64_LITTLE_ENDIAN: &[u8] = b"\x7fELF\x02\x01";
const MACHINE_X86_64: u16 = 62;
const PROGRAM_HEADER: usize = 56;
const TYPE_LOAD: u32 = 1;

/// Refuses a kernel that is cut or for another processor.
///
/// # Errors
/// `vm.spec`.
pub(crate) fn check(kernel: &Image) -> Result<()> {
    let bytes = kernel.bytes();
    let whole = if bytes.starts_with(b"\x7fELF") { elf(bytes) } else { bzimage(bytes) };
    if whole == Some(true) {
        return Ok(());
    }
    let path = kernel.origin().display().to_string();
    Err(Error::new(Code::VmSpec, format!("kernel {path} is cut short or not for x86-64"))
        .with_hint("an interrupted copy or download? Fetch it again")
        .with_detail("path", path))
}

/// Whether every segment is inside of the file; none where the headers are not.
fn elf(bytes: &[u8]) -> Option<bool> {
    let short = |at: usize| Some(u16::from_le_bytes(*bytes.get(at..at + 2)?.first_chunk()?));
    let long = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..at + 8)?.first_chunk()?));
    if !bytes.starts_with(ELF64_LITTLE_ENDIAN)
        || short(18)? != MACHINE_X86_64
        || usize::from(short(54)?) != PROGRAM_HEADER
    {
        return Some(false);
    }
    let table = usize::try_from(long(32)?).ok()?;
    let mut segments = 0;
    for index in 0..usize::from(short(56)?) {
        let header = table.checked_add(index * PROGRAM_HEADER)?;
        let kind = u32::from_le_bytes(*bytes.get(header..header.checked_add(4)?)?.first_chunk()?);
        let (offset, length) = (long(header.checked_add(8)?)?, long(header.checked_add(32)?)?);
        if offset.checked_add(length)? > bytes.len() as u64 {
            return Some(false);
        }
        segments += u32::from(kind == TYPE_LOAD);
    }
    Some(segments > 0)
}

/// Whether something comes after the setup code.
fn bzimage(bytes: &[u8]) -> Option<bool> {
    let sectors = match usize::from(*bytes.get(SETUP_SECTORS)?) {
        0 => DEFAULT_SETUP_SECTORS,
        sectors => sectors,
    };
    Some(bytes.len() > (sectors + 1) * SECTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(bytes: Vec<u8>) -> Option<Code> {
        check(&Image::read("kernel", bytes)).err().map(|error| error.code())
    }

    #[test]
    fn what_is_cut_is_refused() {
        let mut header = ELF64_LITTLE_ENDIAN.to_vec();
        header.resize(64, 0);
        header[18] = 62;
        header[32] = 64;
        header[54] = 56;
        header[56] = 1;
        let mut segment = vec![0; 56];
        segment[0] = 1;
        segment[8] = 120;
        segment[32] = 10;
        let whole = [header, segment, vec![0; 10]].concat();
        assert_eq!(code(whole.clone()), None);
        for length in [6, 63, 100, 129] {
            assert_eq!(code(whole[..length].to_vec()), Some(Code::VmSpec), "{length}");
        }
        assert_eq!(code(b"\x7fELF".repeat(20_000)), Some(Code::VmSpec));
        let mut setup = vec![0; 4000];
        assert_eq!(code(setup.clone()), None);
        setup.truncate(2560);
        assert_eq!(code(setup), Some(Code::VmSpec));
    }
}
