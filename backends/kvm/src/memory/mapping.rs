//! An owned range of this process's address space.

use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use rustix::io;
use rustix::mm::{self, MapFlags, ProtFlags};

/// A mapping that is unmapped when it is dropped. It does not move.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: a mapping is a range of addresses without thread affinity; all access to its contents
// goes through raw pointers whose users state their own synchronisation.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` only reveals the address and the length.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes of `file` from its start.
    pub(crate) fn file(
        file: BorrowedFd<'_>,
        length: usize,
        protection: ProtFlags,
        flags: MapFlags,
    ) -> io::Result<Self> {
        // SAFETY: without MAP_FIXED the kernel chooses a range that nothing else uses.
        let start = unsafe { mm::mmap(ptr::null_mut(), length, protection, flags, file, 0) }?;
        Ok(Self::own(start.cast(), length))
    }

    /// Sets `length` bytes of addresses aside; nothing is behind them yet.
    pub(crate) fn reserve(length: usize) -> io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: without MAP_FIXED the kernel chooses a range that nothing else uses.
        let start =
            unsafe { mm::mmap_anonymous(ptr::null_mut(), length, ProtFlags::empty(), flags) }?;
        Ok(Self::own(start.cast(), length))
    }

    /// Maps `length` bytes of zeroes.
    pub(crate) fn anonymous(length: usize, flags: MapFlags) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: without MAP_FIXED the kernel chooses a range that nothing else uses.
        let start = unsafe {
            mm::mmap_anonymous(ptr::null_mut(), length, protection, MapFlags::PRIVATE | flags)
        }?;
        Ok(Self::own(start.cast(), length))
    }

    fn own(start: *mut u8, length: usize) -> Self {
        let start = NonNull::new(start).expect("mmap without MAP_FIXED never returns null");
        Self { start, length }
    }

    /// The first address.
    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The length in bytes.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// The addresses.
    pub(crate) fn range(&self) -> std::ops::Range<usize> {
        let start = self.start() as usize;
        start..start + self.length
    }

    /// Puts `file`, mapped privately from offset `offset`, in place of the range that starts at
    /// `offset`. The addresses stay; their contents become the file's.
    ///
    /// # Safety
    /// No reference into the range may be alive, and no other thread may access it meanwhile.
    pub(crate) unsafe fn replace_by_private_file(
        &self,
        file: BorrowedFd<'_>,
        offset: usize,
        length: usize,
    ) -> io::Result<()> {
        self.check(offset, length);
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: `check` keeps the fixed range inside this mapping, which we own; the caller
        // vouches that nobody looks at it.
        unsafe {
            let at = self.start().add(offset).cast();
            mm::mmap(at, length, protection, flags, file, offset as u64)?;
        }
        Ok(())
    }

    /// Puts zeroes in place of a range and frees what was beneath it.
    ///
    /// # Safety
    /// As for [`Mapping::replace_by_private_file`].
    pub(crate) unsafe fn replace_by_zeroes(&self, offset: usize, length: usize) -> io::Result<()> {
        self.check(offset, length);
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: as in `replace_by_private_file`.
        unsafe {
            let at = self.start().add(offset).cast();
            mm::mmap_anonymous(at, length, protection, flags)?;
        }
        Ok(())
    }

    /// Forbids writing, for good.
    pub(crate) fn seal(&self) -> io::Result<()> {
        // SAFETY: the range is ours; taking away the right to write cannot make a live pointer
        // read anything else.
        unsafe { mm::mprotect(self.start().cast(), self.length, mm::MprotectFlags::READ) }
    }

    fn check(&self, offset: usize, length: usize) {
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.length);
        assert!(inside, "{length} bytes at {offset} are not inside a mapping of {}", self.length);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by us and is unmapped once; whoever holds a pointer into
        // it keeps this value alive.
        let result = unsafe { mm::munmap(self.start().cast(), self.length) };
        debug_assert!(result.is_ok(), "munmap of our own range: {result:?}");
    }
}
