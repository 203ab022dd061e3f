//! Guest RAM.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::ptr::{self, NonNull};

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use vm_memory::GuestAddress;
use vmoon_core::Bytes;
use vmoon_virtio::memory::{DirtyBitmap, GuestMemory, MappedRam, guest_memory};

use super::PAGE;

/// How much of RAM QEMU's microvm puts below 4 GiB; the rest begins there.
pub(crate) const BELOW_4_GIB: u64 = 3 << 30;

/// Runs of pages at least this long are given back to the host rather than filled with zeroes.
const LONG_RUN: usize = 64;

/// Guest RAM: a memfd, mapped here and in QEMU.
#[derive(Debug)]
pub(crate) struct Ram {
    file: File,
    start: NonNull<u8>,
    length: usize,
    memory: GuestMemory,
}

// SAFETY: a mapping has no thread affinity; access to its contents goes through `GuestMemory`, or
// through the methods below whose callers state that nobody else looks.
unsafe impl Send for Ram {}
// SAFETY: as above.
unsafe impl Sync for Ram {}

impl Ram {
    /// RAM of `length` bytes, a multiple of the page size, all zero.
    pub(crate) fn new(length: usize) -> io::Result<Self> {
        let file = File::from(memfd_create("guest-ram", MemfdFlags::CLOEXEC)?);
        file.set_len(length as u64)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: without MAP_FIXED the kernel chooses a range that nothing else uses.
        let start = unsafe { mmap(ptr::null_mut(), length, protection, flags, &file, 0) }?;
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let low = length.min(usize::try_from(BELOW_4_GIB).unwrap_or(usize::MAX));
        let piece = |offset: usize, length: usize, base: u64| MappedRam {
            // SAFETY: `offset` lies inside of the mapping.
            pointer: unsafe { start.as_ptr().add(offset) },
            length,
            base: GuestAddress(base),
            dirty: DirtyBitmap::default(),
        };
        let mut pieces = vec![piece(0, low, 0)];
        if low < length {
            pieces.push(piece(low, length - low, 1 << 32));
        }
        // SAFETY: the mapping lives as long as `memory` does: both go with this value, and
        // `GuestMemory` is handed out by reference to the device that is dropped before.
        let memory = unsafe { guest_memory(pieces) }?;
        Ok(Self { file, start, length, memory })
    }

    /// The file.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// RAM as devices see it.
    pub(crate) fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// The number of pages.
    pub(crate) fn pages(&self) -> usize {
        self.length / PAGE
    }

    /// The ranges of pages that the host holds.
    pub(crate) fn populated(&self) -> io::Result<Vec<std::ops::Range<usize>>> {
        super::extents::populated(&self.file, self.length as u64)
    }

    /// Bytes that the host holds for it.
    pub(crate) fn resident(&self) -> io::Result<Bytes> {
        Ok(Bytes(self.file.metadata()?.blocks() * 512))
    }

    /// The contents of a page.
    ///
    /// # Safety
    /// The guest does not run, and no device writes while the reference lives.
    pub(super) unsafe fn page(&self, page: usize) -> &[u8; PAGE] {
        assert!(page < self.pages(), "a page of RAM");
        // SAFETY: the page lies inside of the mapping, and the caller keeps writers away.
        unsafe { &*self.start.as_ptr().add(page * PAGE).cast() }
    }

    /// Copies a page out, whether or not the guest runs: a page that is being written may come
    /// out in between.
    pub(super) fn copy_page(&self, page: usize, into: &mut [u8; PAGE]) {
        assert!(page < self.pages(), "a page of RAM");
        // SAFETY: the page lies inside of the mapping. It may change meanwhile: bytes are copied,
        // and no reference is made.
        unsafe {
            ptr::copy_nonoverlapping(self.start.as_ptr().add(page * PAGE), into.as_mut_ptr(), PAGE);
        }
    }

    /// Overwrites a page.
    ///
    /// # Safety
    /// The guest does not run, and neither a device nor a reference uses the page.
    pub(super) unsafe fn put_page(&self, page: usize, contents: &[u8; PAGE]) {
        assert!(page < self.pages(), "a page of RAM");
        // SAFETY: the page lies inside of the mapping, and the caller keeps others away.
        unsafe {
            ptr::copy_nonoverlapping(contents.as_ptr(), self.start.as_ptr().add(page * PAGE), PAGE);
        }
    }

    /// Makes a run of pages zero; a long one is given back to the host.
    ///
    /// # Safety
    /// As for [`Ram::put_page`].
    pub(super) unsafe fn clear(&self, run: std::ops::Range<usize>) -> io::Result<()> {
        if run.len() >= LONG_RUN {
            // SAFETY: the caller's promise.
            unsafe { self.release(run) }?;
        } else {
            for page in run {
                // SAFETY: the caller's promise.
                unsafe { self.put_page(page, &[0; PAGE]) };
            }
        }
        Ok(())
    }

    /// Gives a run of pages back to the host: they read as zeroes from then on.
    ///
    /// # Safety
    /// As for [`Ram::put_page`].
    pub(super) unsafe fn release(&self, run: std::ops::Range<usize>) -> io::Result<()> {
        assert!(run.end <= self.pages(), "pages of RAM");
        let (offset, length) = ((run.start * PAGE) as u64, (run.len() * PAGE) as u64);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, flags, offset, length)?)
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by us and is unmapped once.
        let result = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
        debug_assert!(result.is_ok(), "munmap of our own range: {result:?}");
    }
}
