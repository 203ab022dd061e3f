//! The RAM of one machine, mapped once for its whole life.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::{self, FallocateFlags, MemfdFlags};
use rustix::io;
use rustix::mm::{self, Advice, MapFlags, ProtFlags};
use vm_memory::GuestAddress;
use vmoon_virtio::memory::{DirtyBitmap, GuestMemory, MappedRam, guest_memory};

use super::PAGE_SIZE;
use super::base::Base;
use super::bus_error::Watched;
use super::mapping::Mapping;
use crate::boot::layout;

/// A range of guest physical addresses and where it lies in the mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    /// The first guest physical address.
    pub(crate) start: u64,
    /// The length in bytes.
    pub(crate) length: usize,
    /// Where the region begins in the mapping.
    pub(crate) offset: usize,
}

/// Guest RAM: one mapping of this process, cut into the regions around the MMIO hole.
///
/// Pages are numbered by their place in the mapping, so numbers have no gap.
#[derive(Debug)]
pub(crate) struct Ram {
    // Declared before `mapping`: it holds pointers into it.
    memory: GuestMemory,
    regions: Vec<Region>,
    written: DirtyBitmap,
    beneath: Mutex<Beneath>,
    /// Where a saved snapshot's file lies beneath. Declared before `mapping`, which it watches.
    watched: OnceLock<Watched>,
    mapping: Mapping,
}

/// What lies beneath the mapping.
#[derive(Debug)]
enum Beneath {
    /// Addresses only.
    Nothing,
    /// A memfd, mapped shared: no snapshot has been taken.
    Live(OwnedFd),
    /// A frozen base, mapped privately.
    Frozen { base: Arc<Base>, holes: usize },
}

/// How many separate ranges may be replaced by zeroes: each costs the kernel a mapping, of which
/// a process has 65,530.
const MAX_HOLES: usize = 16_384;

impl Ram {
    /// Fresh memory of `length` bytes, all zero.
    pub(crate) fn new(length: usize) -> io::Result<Self> {
        let file = fs::memfd_create("vmoon-ram", MemfdFlags::CLOEXEC)?;
        fs::ftruncate(&file, length as u64)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        let mapping = Mapping::file(file.as_fd(), length, protection, flags)?;
        Self::assemble(mapping, Beneath::Live(file))
    }

    /// The addresses of memory whose contents come later, with [`Ram::fill`].
    pub(crate) fn reserve(length: usize) -> io::Result<Self> {
        Self::assemble(Mapping::reserve(length)?, Beneath::Nothing)
    }

    /// Puts a copy-on-write view of `base` behind reserved addresses.
    ///
    /// # Safety
    /// No vCPU has run and no device has accessed memory.
    pub(crate) unsafe fn fill(&self, base: Arc<Base>) -> io::Result<()> {
        // SAFETY: the caller keeps everybody away.
        unsafe { self.mapping.replace_by_private_file(base.file(), 0, base.length()) }?;
        if base.is_loaded() {
            let watched = Watched::new(&self.host_range()).map_err(|error| errno(&error))?;
            self.watched.get_or_init(|| watched);
        }
        *self.beneath() = Beneath::Frozen { base, holes: 0 };
        Ok(())
    }

    /// Whether contents were missing when a device touched them: a saved snapshot was cut.
    pub(crate) fn is_broken(&self) -> bool {
        self.watched.get().is_some_and(Watched::is_broken)
    }

    fn assemble(mapping: Mapping, beneath: Beneath) -> io::Result<Self> {
        let regions = regions(mapping.length());
        let written = DirtyBitmap::new(mapping.length());
        let pieces = regions
            .iter()
            .map(|region| MappedRam {
                // SAFETY: `regions` cuts the mapping's length.
                pointer: unsafe { mapping.start().add(region.offset) },
                length: region.length,
                base: GuestAddress(region.start),
                dirty: written.at(region.offset),
            })
            .collect();
        // SAFETY: `mapping` lives in the same structure, which drops it after `memory`; it is
        // only ever replaced in place, by methods whose callers keep everybody else away.
        let memory = unsafe { guest_memory(pieces) }.map_err(|error| errno(&error))?;
        Ok(Self {
            memory,
            regions,
            written,
            beneath: Mutex::new(beneath),
            watched: OnceLock::new(),
            mapping,
        })
    }

    /// The memory as devices see it; writes through it are noted as dirty.
    pub(crate) fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// The regions, in the order of their addresses.
    pub(crate) fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// What the VMM wrote, by place in the mapping.
    pub(crate) fn written(&self) -> &DirtyBitmap {
        &self.written
    }

    /// The address of a region in this process.
    pub(crate) fn host_address(&self, region: &Region) -> u64 {
        self.mapping.start() as u64 + region.offset as u64
    }

    /// The address of a page in this process.
    pub(crate) fn page(&self, page: usize) -> *mut u8 {
        assert!(page < self.pages(), "page {page} of {}", self.pages());
        // SAFETY: the assertion keeps the page inside the mapping.
        unsafe { self.mapping.start().add(page * PAGE_SIZE) }
    }

    /// The number of pages.
    pub(crate) fn pages(&self) -> usize {
        self.mapping.length() / PAGE_SIZE
    }

    /// The range of addresses in this process.
    pub(crate) fn host_range(&self) -> std::ops::Range<usize> {
        self.mapping.range()
    }

    fn beneath(&self) -> MutexGuard<'_, Beneath> {
        self.beneath.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The frozen base beneath; the first call freezes what is there and goes on copy-on-write.
    ///
    /// # Safety
    /// No vCPU runs and no device accesses memory during the call.
    pub(crate) unsafe fn freeze(&self) -> io::Result<Arc<Base>> {
        let mut beneath = self.beneath();
        let file = match &*beneath {
            Beneath::Frozen { base, .. } => return Ok(base.clone()),
            Beneath::Nothing => return Err(io::Errno::INVAL),
            Beneath::Live(file) => file.try_clone().map_err(|error| errno(&error))?,
        };
        let base = Arc::new(Base::freeze(file, self.mapping.length())?);
        // SAFETY: the caller keeps everybody away from the range. What is mapped there afterwards
        // has the same contents, and from now on nobody writes to the file.
        unsafe { self.mapping.replace_by_private_file(base.file(), 0, base.length()) }?;
        *beneath = Beneath::Frozen { base: base.clone(), holes: 0 };
        Ok(base)
    }

    /// Frees the host memory behind a range that the guest gave up; it reads as zero afterwards.
    ///
    /// # Safety
    /// No device holds a reference into the range.
    pub(crate) unsafe fn reclaim(&self, offset: usize, length: usize) -> io::Result<()> {
        let mut beneath = self.beneath();
        match &mut *beneath {
            Beneath::Nothing => Err(io::Errno::INVAL),
            // DONTNEED would free nothing of a shared memfd.
            Beneath::Live(file) => fs::fallocate(
                file.as_fd(),
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                offset as u64,
                length as u64,
            ),
            Beneath::Frozen { base, holes } => {
                let mut pages = offset / PAGE_SIZE..(offset + length) / PAGE_SIZE;
                let held = pages.clone().any(|page| base.holds(page));
                if held && *holes < MAX_HOLES {
                    *holes += 1;
                    // SAFETY: the caller keeps devices away; a vCPU that touches the range sees
                    // either its old contents or zeroes, both of which a balloon page may have.
                    return unsafe { self.mapping.replace_by_zeroes(offset, length) };
                }
                // Private copies go; where the base holds nothing, zeroes show.
                // SAFETY: the range lies inside the mapping and keeps being readable and
                // writable.
                unsafe {
                    mm::madvise(self.page(pages.start).cast(), length, Advice::LinuxDontNeed)
                }?;
                // The base's bytes would come back: cover them.
                pages.by_ref().filter(|page| base.holds(*page)).for_each(|page| {
                    // SAFETY: a whole page of ours; see above for the guest.
                    unsafe { self.page(page).write_bytes(0, PAGE_SIZE) };
                });
                Ok(())
            }
        }
    }

    /// Where a guest physical range lies in the mapping, if it lies in one region.
    pub(crate) fn offset_of(&self, start: u64, length: u64) -> Option<usize> {
        let end = start.checked_add(length)?;
        self.regions.iter().find_map(|region| {
            let inside = start >= region.start && end <= region.start + region.length as u64;
            let within = usize::try_from(start.checked_sub(region.start)?).ok()?;
            inside.then_some(region.offset + within)
        })
    }
}

/// Cuts `length` bytes of RAM around the hole below 4 GiB.
fn regions(length: usize) -> Vec<Region> {
    let mut offset = 0;
    layout::ram_regions(length as u64)
        .into_iter()
        .map(|(start, size)| {
            let length = usize::try_from(size).expect("a part of a usize");
            let region = Region { start: start.0, length, offset };
            offset += length;
            region
        })
        .collect()
}

fn errno(error: &std::io::Error) -> io::Errno {
    io::Errno::from_io_error(error).unwrap_or(io::Errno::IO)
}
