//! The pages that one snapshot adds to what lies beneath it.

use std::ptr::NonNull;
use std::sync::Arc;

use rustix::io;
use rustix::mm::MapFlags;

use super::PAGE_SIZE;
use super::mapping::Mapping;

/// Copies of pages, sealed against writing, and the layers beneath that an index may still point
/// into. Deleting a snapshot drops its handle; the pages stay for as long as a later one needs
/// them.
#[derive(Debug)]
pub(crate) struct Layer {
    pages: Mapping,
    /// Keeps the addresses in descendants' indexes valid.
    beneath: Option<Arc<Layer>>,
}

impl Drop for Layer {
    fn drop(&mut self) {
        // A chain of thousands of layers must not be dropped by recursion.
        let mut next = self.beneath.take();
        while let Some(mut layer) = next.and_then(Arc::into_inner) {
            next = layer.beneath.take();
        }
    }
}

/// A layer while it is filled.
#[derive(Debug)]
pub(crate) struct LayerBuilder {
    pages: Mapping,
    used: usize,
}

impl LayerBuilder {
    /// Room for `capacity` pages; at least one.
    pub(crate) fn new(capacity: usize) -> io::Result<Self> {
        let length = capacity.max(1) * PAGE_SIZE;
        // One populating call is cheaper than a fault for each page.
        let pages = Mapping::anonymous(length, MapFlags::POPULATE | MapFlags::NORESERVE)?;
        Ok(Self { pages, used: 0 })
    }

    /// Copies a page in and tells where it will stay.
    ///
    /// # Safety
    /// `source` points to a whole page that nobody writes to during the call.
    pub(crate) unsafe fn push(&mut self, source: *const u8) -> PageContents {
        assert!((self.used + 1) * PAGE_SIZE <= self.pages.length(), "the layer is full");
        // SAFETY: the assertion keeps the target inside the mapping; the caller vouches for the
        // source; the mapping is fresh, so the two cannot overlap, and its addresses are not
        // null.
        unsafe {
            let target = self.pages.start().add(self.used * PAGE_SIZE);
            target.copy_from_nonoverlapping(source, PAGE_SIZE);
            self.used += 1;
            PageContents(NonNull::new_unchecked(target))
        }
    }

    /// Seals the layer above `beneath`.
    pub(crate) fn finish(self, beneath: Option<Arc<Layer>>) -> io::Result<Arc<Layer>> {
        self.pages.seal()?;
        Ok(Arc::new(Layer { pages: self.pages, beneath }))
    }
}

impl Layer {
    /// The memory that this layer alone holds, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.pages.length()
    }
}

/// Where a page's contents are: an address inside a [`Layer`] or of the page of zeroes.
///
/// Valid for as long as the layer lives; [`super::image::MemoryImage`] keeps it alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageContents(NonNull<u8>);

// SAFETY: the address points into sealed or static memory, which any thread may read.
unsafe impl Send for PageContents {}
// SAFETY: as above.
unsafe impl Sync for PageContents {}

/// All untouched pages look like this one.
#[repr(align(4096))]
struct ZeroPage([u8; PAGE_SIZE]);
static ZERO_PAGE: ZeroPage = ZeroPage([0; PAGE_SIZE]);

impl PageContents {
    /// A page of zeroes.
    pub(crate) fn zero() -> Self {
        Self(NonNull::from(&ZERO_PAGE.0).cast())
    }

    /// The address of a whole page.
    pub(crate) fn address(self) -> *const u8 {
        self.0.as_ptr()
    }
}
