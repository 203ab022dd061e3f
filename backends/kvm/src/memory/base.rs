//! The frozen memory at the bottom of a family of snapshots.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{self, SeekFrom};
use rustix::io;
use rustix::mm::{MapFlags, ProtFlags};
use vmoon_core::Result;

use super::PAGE_SIZE;
use super::mapping::Mapping;
use super::source::Source;

/// A file of pages that nobody writes to any more, with a view of it and a note of which pages
/// it holds. Pages that it does not hold are zero.
#[derive(Debug)]
pub(crate) struct Base {
    // Declared before `view`, which it watches.
    source: Option<Source>,
    file: OwnedFd,
    view: Mapping,
    /// One bit a page: whether the file holds data there.
    populated: Vec<u64>,
    populated_pages: u64,
}

impl Base {
    /// Freezes `file`, of `length` bytes. The caller gives up writing to it.
    ///
    /// The cost follows the number of separate extents in the file, not its length.
    pub(crate) fn freeze(file: OwnedFd, length: usize) -> io::Result<Self> {
        let view = Mapping::file(file.as_fd(), length, ProtFlags::READ, MapFlags::SHARED)?;
        let mut base = Self {
            source: None,
            view,
            populated: vec![0; (length / PAGE_SIZE).div_ceil(64)],
            populated_pages: 0,
            file,
        };
        let mut position = 0;
        while let Some((start, end)) = next_extent(base.file.as_fd(), position)? {
            base.note(start / PAGE_SIZE as u64, end.div_ceil(PAGE_SIZE as u64));
            position = end;
        }
        Ok(base)
    }

    /// As [`Base::freeze`], but `file` is that of a saved snapshot at `path`: others could change
    /// it all the same.
    pub(crate) fn load(file: OwnedFd, length: usize, path: PathBuf) -> io::Result<Self> {
        let mut base = Self::freeze(file, length)?;
        base.source = Some(Source::new(path, base.file.as_fd(), &base.view)?);
        Ok(base)
    }

    /// Whether the file is one of a saved snapshot.
    pub(crate) fn is_loaded(&self) -> bool {
        self.source.is_some()
    }

    /// Checks that the pages are still those that were frozen.
    ///
    /// # Errors
    /// `snapshot.corrupt` when the file of a saved snapshot was changed.
    pub(crate) fn check(&self) -> Result<()> {
        self.source.as_ref().map_or(Ok(()), |source| source.check(self.file.as_fd()))
    }

    fn note(&mut self, first: u64, end: u64) {
        self.populated_pages += end - first;
        let mut page = first;
        while page < end {
            let (word, bit) = ((page / 64) as usize, page % 64);
            let count = (64 - bit).min(end - page);
            let mask = if count == 64 { u64::MAX } else { ((1 << count) - 1) << bit };
            self.populated[word] |= mask;
            page += count;
        }
    }

    /// The file, to map it again.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The length in bytes.
    pub(crate) fn length(&self) -> usize {
        self.view.length()
    }

    /// How many pages hold data.
    pub(crate) fn populated_pages(&self) -> u64 {
        self.populated_pages
    }

    /// Whether the page holds data; reading one that does not would allocate it.
    pub(crate) fn holds(&self, page: usize) -> bool {
        self.populated[page / 64] & (1 << (page % 64)) != 0
    }

    /// The pages that hold data, in order.
    pub(crate) fn pages(&self) -> impl Iterator<Item = usize> {
        super::dirty::set_bits(&self.populated)
    }

    /// The address of the page's contents, valid while `self` lives; none when it is zero.
    pub(crate) fn page(&self, page: usize) -> Option<*const u8> {
        // SAFETY: `holds` has checked that the page lies inside the view.
        self.holds(page).then(|| unsafe { self.view.start().add(page * PAGE_SIZE).cast_const() })
    }
}

/// The first range of data at or after `position`.
fn next_extent(file: BorrowedFd<'_>, position: u64) -> io::Result<Option<(u64, u64)>> {
    let start = match fs::seek(file, SeekFrom::Data(position)) {
        Ok(start) => start,
        Err(io::Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some((start, fs::seek(file, SeekFrom::Hole(start))?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn byte(page: *const u8, offset: usize) -> u8 {
        // SAFETY: the tests pass an offset inside a page of a live base.
        unsafe { page.add(offset).read() }
    }

    #[test]
    fn holes_are_zero_and_are_told_from_data() {
        let file = fs::memfd_create("test", fs::MemfdFlags::CLOEXEC).unwrap();
        let pages = 200;
        fs::ftruncate(&file, (pages * PAGE_SIZE) as u64).unwrap();
        for page in [0, 1, 63, 64, 130_u8] {
            let offset = u64::from(page) * PAGE_SIZE as u64;
            io::pwrite(&file, &[page + 1; PAGE_SIZE], offset).unwrap();
        }
        let base = Base::freeze(file, pages * PAGE_SIZE).unwrap();
        assert_eq!(base.populated_pages(), 5);
        for page in 0..pages {
            let written = u8::try_from(page).ok().filter(|page| [0, 1, 63, 64, 130].contains(page));
            let expected = written.map(|page| page + 1);
            assert_eq!(base.page(page).map(|page| byte(page, 17)), expected, "page {page}");
        }
    }
}
