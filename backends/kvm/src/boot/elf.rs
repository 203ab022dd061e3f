//! Reads an ELF kernel: `vmlinux` or the built-in guest.

use std::path::Path;

use vmoon_core::{Error, Result};

use super::bytes::{array, slice, u16_at, u32_at, u64_at};
use super::recognise::file_error;

const TYPE_LOAD: u32 = 1;
const TYPE_NOTE: u32 = 4;
const PROGRAM_HEADER_SIZE: usize = 56;
/// Type of the note that holds the 32-bit PVH entry (`XEN_ELFNOTE_PHYS32_ENTRY`).
const NOTE_PHYS32_ENTRY: u32 = 18;
/// Program headers of any real kernel; more would be an attack on our time.
const MAX_PROGRAM_HEADERS: u16 = 128;

/// An ELF executable whose headers have been checked.
#[derive(Clone, Debug)]
pub(super) struct Elf<'a> {
    /// What is to be loaded, in the file's order.
    pub segments: Vec<Segment<'a>>,
    /// The 64-bit entry, a physical address for kernels.
    pub entry: u64,
    /// The 32-bit PVH entry, if there is one.
    pub pvh_entry: Option<u32>,
}

/// A piece of an ELF file and where it goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    /// Physical address.
    pub address: u64,
    /// Bytes from the file.
    pub bytes: &'a [u8],
    /// Size in memory; the rest beyond the file's bytes is zero.
    pub size: u64,
}

impl Segment<'_> {
    /// The first address after the segment.
    pub(super) fn end(&self) -> u64 {
        self.address.saturating_add(self.size)
    }
}

impl<'a> Elf<'a> {
    /// Checks a file that has been recognised as an ELF file for x86-64.
    pub(super) fn parse(path: &Path, bytes: &'a [u8]) -> Result<Self> {
        let truncated = |expected: u64| truncated(path, bytes.len(), expected);
        let (entry, offset, entry_size, count) = (|| {
            Some((u64_at(bytes, 24)?, u64_at(bytes, 32)?, u16_at(bytes, 54)?, u16_at(bytes, 56)?))
        })()
        .ok_or_else(|| truncated(64))?;
        if usize::from(entry_size) != PROGRAM_HEADER_SIZE
            || count == 0
            || count > MAX_PROGRAM_HEADERS
        {
            return Err(file_error(
                path,
                format!("kernel {} has no usable ELF program headers", path.display()),
            )
            .with_hint("give a kernel's vmlinux or bzImage, not another ELF file"));
        }
        let table_size = u64::from(count) * PROGRAM_HEADER_SIZE as u64;
        let table = slice(bytes, offset, table_size)
            .ok_or_else(|| truncated(offset.saturating_add(table_size)))?;

        let mut elf = Self { segments: Vec::new(), entry, pvh_entry: None };
        for header in table.as_chunks::<PROGRAM_HEADER_SIZE>().0 {
            let header = ProgramHeader::read(header);
            if header.kind != TYPE_LOAD && header.kind != TYPE_NOTE {
                continue;
            }
            let content = slice(bytes, header.offset, header.file_size)
                .ok_or_else(|| truncated(header.offset.saturating_add(header.file_size)))?;
            if header.kind == TYPE_NOTE {
                elf.pvh_entry = elf.pvh_entry.or_else(|| pvh_note(content));
            } else if header.memory_size > 0 {
                if header.file_size > header.memory_size {
                    return Err(file_error(
                        path,
                        format!(
                            "kernel {} is damaged: a segment is larger in the file than in memory",
                            path.display()
                        ),
                    ));
                }
                elf.segments.push(Segment {
                    address: header.physical,
                    bytes: content,
                    size: header.memory_size,
                });
            }
        }
        Ok(elf)
    }

    /// The entry of Linux's 64-bit protocol: the file's, when it is a loaded physical address.
    pub(super) fn linux_entry(&self) -> Option<u64> {
        let inside = |segment: &Segment<'_>| (segment.address..segment.end()).contains(&self.entry);
        self.segments.iter().any(inside).then_some(self.entry)
    }

    /// The first address after all segments.
    pub(super) fn end(&self) -> u64 {
        self.segments.iter().map(Segment::end).max().unwrap_or_default()
    }
}

fn truncated(path: &Path, length: usize, expected: u64) -> Error {
    file_error(
        path,
        format!(
            "kernel {} is truncated: {length} bytes where its headers need {expected}",
            path.display()
        ),
    )
    .with_hint("copy the file again")
    .with_detail("expected_bytes", expected)
}

struct ProgramHeader {
    kind: u32,
    offset: u64,
    physical: u64,
    file_size: u64,
    memory_size: u64,
}

impl ProgramHeader {
    fn read(bytes: &[u8; PROGRAM_HEADER_SIZE]) -> Self {
        let number = |offset| u64_at(bytes, offset).unwrap_or_default();
        Self {
            kind: u32_at(bytes, 0).unwrap_or_default(),
            offset: number(8),
            physical: number(24),
            file_size: number(32),
            memory_size: number(40),
        }
    }
}

/// Finds the PVH entry among the notes of one segment.
fn pvh_note(mut notes: &[u8]) -> Option<u32> {
    loop {
        let name_size = usize::try_from(u32_at(notes, 0)?).ok()?;
        let content_size = usize::try_from(u32_at(notes, 4)?).ok()?;
        let kind = u32_at(notes, 8)?;
        let content = 12usize.checked_add(name_size.checked_next_multiple_of(4)?)?;
        let next = content.checked_add(content_size.checked_next_multiple_of(4)?)?;
        if kind == NOTE_PHYS32_ENTRY && array(notes, 12) == Some(*b"Xen\0") {
            // The entry is 4 bytes in the standard and 8 in a 64-bit Linux.
            return u32_at(notes, content).filter(|_| content_size >= 4);
        }
        notes = notes.get(next..)?;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A small ELF kernel: 16 bytes of code at 1 MiB with 16 zeroed after them, and a PVH note.
    pub(in crate::boot) fn sample(pvh: bool) -> Vec<u8> {
        let mut file = vec![0u8; 64];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16..18].copy_from_slice(&2u16.to_le_bytes());
        file[18..20].copy_from_slice(&62u16.to_le_bytes());
        file[24..32].copy_from_slice(&0x10_0000u64.to_le_bytes());
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        file[54..56].copy_from_slice(&56u16.to_le_bytes());
        file[56..58].copy_from_slice(&2u16.to_le_bytes());
        let mut header = |kind: u32, offset: u64, physical: u64, in_file: u64, in_memory: u64| {
            file.extend(kind.to_le_bytes());
            file.extend(7u32.to_le_bytes());
            for number in [offset, physical, physical, in_file, in_memory, 0x1000] {
                file.extend(number.to_le_bytes());
            }
        };
        let code = 64 + 2 * 56;
        header(TYPE_LOAD, code, 0x10_0000, 16, 32);
        header(TYPE_NOTE, code + 16, 0, if pvh { 20 } else { 0 }, 20);
        file.extend([0x90; 16]);
        for number in [4, 4, NOTE_PHYS32_ENTRY, u32::from_le_bytes(*b"Xen\0"), 0x10_0008] {
            file.extend(number.to_le_bytes());
        }
        file
    }

    #[test]
    fn segments_entry_and_note_are_found() {
        let file = sample(true);
        let elf = Elf::parse(Path::new("k"), &file).unwrap();
        assert_eq!((elf.entry, elf.pvh_entry), (0x10_0000, Some(0x10_0008)));
        assert_eq!(elf.segments.len(), 1);
        assert_eq!((elf.segments[0].bytes, elf.segments[0].size), (&[0x90u8; 16][..], 32));
        assert_eq!(elf.end(), 0x10_0020);
        assert_eq!(Elf::parse(Path::new("k"), &sample(false)).unwrap().pvh_entry, None);
    }

    #[test]
    fn every_truncation_says_how_long_the_file_should_be() {
        let file = sample(true);
        for length in 0..file.len() {
            let error = Elf::parse(Path::new("k"), &file[..length]).unwrap_err();
            let expected = error.details()["expected_bytes"].as_u64().unwrap();
            assert!(expected > length as u64 && expected <= file.len() as u64, "{length}");
        }
    }
}
