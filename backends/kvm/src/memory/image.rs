//! What memory held at one moment.

use std::sync::Arc;

use rustix::io;

use super::PAGE_SIZE;
use super::base::Base;
use super::dirty::DirtyPages;
use super::index::PageIndex;
use super::layer::{Layer, LayerBuilder, PageContents};
use super::ram::Ram;

/// A frozen memory: a base and the pages that differ from it. Cloning shares everything.
#[derive(Clone, Debug)]
pub(crate) struct MemoryImage {
    base: Arc<Base>,
    /// Its addresses point into `layers`.
    index: PageIndex,
    layers: Option<Arc<Layer>>,
}

impl MemoryImage {
    /// The image that a base alone makes.
    pub(crate) fn of_base(base: Arc<Base>) -> Self {
        let index = PageIndex::new(base.length() / PAGE_SIZE);
        Self { base, index, layers: None }
    }

    /// The base.
    pub(crate) fn base(&self) -> &Arc<Base> {
        &self.base
    }

    /// The pages that differ from the base.
    pub(crate) fn index(&self) -> &PageIndex {
        &self.index
    }

    /// The memory that the newest layer holds, in bytes.
    pub(crate) fn layer_bytes(&self) -> usize {
        self.layers.as_ref().map_or(0, |layer| layer.bytes())
    }

    /// The address of what a page held, valid while `self` lives.
    fn contents(&self, page: usize) -> *const u8 {
        match self.index.get(page) {
            Some(contents) => contents.address(),
            None => self.base.page(page).unwrap_or_else(|| PageContents::zero().address()),
        }
    }

    /// The image of `ram` as it is now, `dirty` being where it differs from this one.
    ///
    /// # Safety
    /// No vCPU runs and no device writes to `ram` during the call.
    pub(crate) unsafe fn above(&self, ram: &Ram, dirty: &DirtyPages) -> io::Result<Self> {
        let mut builder = LayerBuilder::new(dirty.count())?;
        let mut index = self.index.clone();
        for page in dirty.iter() {
            let source = ram.page(page).cast_const();
            // SAFETY: `Ram::page` gives a whole page, and the caller keeps writers away.
            let contents = unsafe {
                if is_zero(source) { PageContents::zero() } else { builder.push(source) }
            };
            index.insert(page, contents);
        }
        let layers = Some(builder.finish(self.layers.clone())?);
        Ok(Self { base: self.base.clone(), index, layers })
    }

    /// Puts the pages of `dirty` back to what they held in this image.
    ///
    /// # Safety
    /// No vCPU runs and no device accesses `ram` during the call.
    pub(crate) unsafe fn put_back(&self, ram: &Ram, dirty: &DirtyPages) -> u64 {
        let mut pages = 0;
        for page in dirty.iter() {
            // SAFETY: both are whole pages: `Ram::page` checks, and an image covers all of RAM.
            // The image is frozen, so they do not overlap. The caller keeps everybody away.
            unsafe { ram.page(page).copy_from_nonoverlapping(self.contents(page), PAGE_SIZE) };
            pages += 1;
        }
        pages
    }

    /// Calls `visit` for each page that is not zero, in order.
    pub(crate) fn for_each_page(
        &self,
        mut visit: impl FnMut(usize, &[u8; PAGE_SIZE]) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let mut entered = Vec::with_capacity(self.index.len());
        self.index.for_each(|page, _| entered.push(page));
        let mut entered = entered.into_iter().peekable();
        let mut held = self.base.pages().peekable();
        while let Some(page) = match (entered.peek(), held.peek()) {
            (Some(one), Some(other)) => Some(*one.min(other)),
            (one, other) => one.or(other).copied(),
        } {
            entered.next_if_eq(&page);
            held.next_if_eq(&page);
            let contents = self.contents(page);
            // SAFETY: a whole page of a frozen image, which lives as long as `self`.
            let (zero, bytes) = unsafe { (is_zero(contents), &*contents.cast()) };
            if !zero {
                visit(page, bytes)?;
            }
        }
        Ok(())
    }

    /// Gives `ram`, whose addresses are reserved, these contents, sharing the base copy-on-write.
    ///
    /// # Safety
    /// No vCPU has run and no device has accessed memory.
    pub(crate) unsafe fn fill(&self, ram: &Ram) -> io::Result<()> {
        // SAFETY: the caller keeps everybody away.
        unsafe { ram.fill(self.base.clone()) }?;
        self.index.for_each(|page, contents| {
            // SAFETY: whole pages, as in `put_back`.
            unsafe { ram.page(page).copy_from_nonoverlapping(contents.address(), PAGE_SIZE) };
        });
        Ok(())
    }
}

/// Whether a page is all zero.
///
/// # Safety
/// `page` points to a whole page that nobody writes to during the call.
unsafe fn is_zero(page: *const u8) -> bool {
    // SAFETY: the caller's promise.
    let bytes = unsafe { &*page.cast::<[u8; PAGE_SIZE]>() };
    // By words: most pages differ in the first, and the others go eight times as fast.
    bytes.as_chunks::<8>().0.iter().all(|word| u64::from_ne_bytes(*word) == 0)
}
