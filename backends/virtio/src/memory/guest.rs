//! Guest memory above a mapping that somebody else owns.

use std::io;

use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use super::DirtyBitmap;

/// The size of a page of guest memory, in bytes.
pub const PAGE_SIZE: usize = 4096;

/// Guest RAM, as devices read and write it. Every write through it is recorded in the
/// [`DirtyBitmap`].
pub type GuestMemory = GuestMemoryMmap<DirtyBitmap>;

/// A piece of guest RAM inside of a mapping of the host.
#[derive(Debug)]
pub struct MappedRam {
    /// The first byte, on the host; aligned to a page.
    pub pointer: *mut u8,
    /// The number of bytes; a multiple of the page size.
    pub length: usize,
    /// Where the guest sees it.
    pub base: GuestAddress,
    /// Where its writes are recorded: a handle whose offset 0 is this piece's first byte.
    pub dirty: DirtyBitmap,
}

/// Guest memory above mappings that the caller owns; nothing is unmapped when it is dropped.
/// The pieces are in ascending order of guest address and do not overlap.
///
/// # Errors
/// `InvalidInput` where the pieces are empty, misaligned, out of order or overlapping.
///
/// # Safety
/// For as long as the result or a clone of it lives, each piece's `length` bytes from `pointer`
/// stay mapped, readable and writable, at that address. What is mapped there may be replaced
/// (`MAP_FIXED`) as long as no thread accesses it through the result at that time. The bytes are
/// shared with the guest: no Rust reference to them may exist while the guest or a device runs.
pub unsafe fn guest_memory(pieces: Vec<MappedRam>) -> io::Result<GuestMemory> {
    let invalid = |error: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidInput, error.to_string())
    };
    let regions = pieces.into_iter().map(|piece| {
        let builder = MmapRegionBuilder::new_with_bitmap(piece.length, piece.dirty)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE);
        // SAFETY: the caller keeps `length` bytes at `pointer` mapped while the region lives.
        let region = unsafe { builder.with_raw_mmap_pointer(piece.pointer) }
            .build()
            .map_err(|error| invalid(&error))?;
        GuestRegionMmap::new(region, piece.base)
            .ok_or_else(|| invalid(&"a piece of RAM passes the end of the address space"))
    });
    GuestMemory::from_regions(regions.collect::<io::Result<_>>()?).map_err(|error| invalid(&error))
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestMemoryBackend, MmapRegion};

    use super::*;

    #[test]
    fn writes_reach_the_mapping_and_the_bitmap() {
        let backing = MmapRegion::<()>::new(PAGE_SIZE * 8).unwrap();
        let dirty = DirtyBitmap::new(PAGE_SIZE * 8);
        let high = 0x1_0000_0000;
        let piece = |first_page: usize, pages: usize, base: u64| MappedRam {
            // SAFETY: the offset lies inside of `backing`.
            pointer: unsafe { backing.as_ptr().add(first_page * PAGE_SIZE) },
            length: pages * PAGE_SIZE,
            base: GuestAddress(base),
            dirty: dirty.at(first_page * PAGE_SIZE),
        };
        // SAFETY: `backing` outlives `memory`, and no reference to its bytes exists.
        let memory = unsafe { guest_memory(vec![piece(0, 4, 0), piece(4, 4, high)]) }.unwrap();
        memory.write_slice(&[7; 16], GuestAddress(high + 4096 - 8)).unwrap();
        let mut pages = Vec::new();
        dirty.drain(|word, bits| pages.push((word, bits)));
        assert_eq!(pages, [(0, 0b11_0000)]);
        assert_eq!(memory.read_obj::<u8>(GuestAddress(high + 4096)).unwrap(), 7);
        assert!(!memory.check_range(GuestAddress(4 * 4096 - 1), 2));
        // SAFETY: as above; the call fails.
        assert!(unsafe { guest_memory(vec![piece(0, 4, 0), piece(4, 4, 4096)]) }.is_err());
        // SAFETY: as above; the call fails.
        assert!(unsafe { guest_memory(Vec::new()) }.is_err());
    }
}
