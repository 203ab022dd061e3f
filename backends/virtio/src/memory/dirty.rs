//! A two-level atomic bitmap of the pages that the VMM wrote.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vm_memory::bitmap::{Bitmap, BitmapSlice, NewBitmap, WithBitmapSlice};

use super::PAGE_SIZE;

/// The bits of one word.
const WORD_BITS: usize = 64;

/// Which pages the VMM wrote: used rings, receive buffers, pages given back by the balloon.
/// KVM's dirty log knows nothing of these writes.
///
/// A handle: clones share one bitmap. Two levels: one bit a page, and one summary bit for each
/// word of 64 pages, so that draining costs follow the pages set rather than the size of RAM.
///
/// A handle may start at an offset into the bitmap ([`DirtyBitmap::at`]): guest RAM on both sides
/// of a hole is then one sequence of pages.
#[derive(Clone, Default)]
pub struct DirtyBitmap {
    shared: Arc<Shared>,
    base: usize,
}

#[derive(Default)]
struct Shared {
    /// One bit a page.
    words: Box<[AtomicU64]>,
    /// One bit for each word that is not zero; may also be set for a word that is zero.
    summary: Box<[AtomicU64]>,
}

impl DirtyBitmap {
    /// A clean bitmap for `length` bytes of memory.
    pub fn new(length: usize) -> Self {
        let words = length.div_ceil(PAGE_SIZE).div_ceil(WORD_BITS);
        let zeroed = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self {
            shared: Arc::new(Shared {
                words: zeroed(words),
                summary: zeroed(words.div_ceil(WORD_BITS)),
            }),
            base: 0,
        }
    }

    /// A handle to the same bitmap whose offset 0 is this handle's `offset`, in bytes.
    #[must_use]
    pub fn at(&self, offset: usize) -> Self {
        Self { shared: Arc::clone(&self.shared), base: self.base.wrapping_add(offset) }
    }

    /// Marks the pages that `length` bytes from `offset` touch. What lies outside of the bitmap
    /// is ignored.
    pub fn mark(&self, offset: usize, length: usize) {
        self.shared.mark(self.base.wrapping_add(offset), length);
    }

    /// Hands every word that is not zero to `visit`, with its index (word `i` covers the pages
    /// from `64 * i`), and clears it. The whole bitmap, whatever this handle's offset.
    ///
    /// A page marked while this runs is visited now or by the next drain.
    pub fn drain(&self, mut visit: impl FnMut(usize, u64)) {
        for (index, summary) in self.shared.summary.iter().enumerate() {
            if summary.load(Ordering::Relaxed) == 0 {
                continue;
            }
            // The summary first: a marker sets the word and then the summary, so a word that is
            // marked behind our back leaves its summary bit for the next drain.
            let mut bits = summary.swap(0, Ordering::AcqRel);
            while bits != 0 {
                let word = index * WORD_BITS + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let pages = self.shared.words[word].swap(0, Ordering::AcqRel);
                if pages != 0 {
                    visit(word, pages);
                }
            }
        }
    }

    /// Forgets every mark.
    pub fn clear(&self) {
        self.drain(|_, _| {});
    }

    /// Whether no page is marked.
    pub fn is_empty(&self) -> bool {
        self.shared.set_words().all(|(_, pages)| pages == 0)
    }

    /// How many pages are marked.
    pub fn count(&self) -> u64 {
        self.shared.set_words().map(|(_, pages)| u64::from(pages.count_ones())).sum()
    }
}

impl Shared {
    fn mark(&self, offset: usize, length: usize) {
        if length == 0 {
            return;
        }
        let first = offset / PAGE_SIZE;
        let last = offset.saturating_add(length - 1) / PAGE_SIZE;
        let mut page = first;
        while page <= last {
            let Some(word) = self.words.get(page / WORD_BITS) else { return };
            let start = page % WORD_BITS;
            let end = (last - page + start).min(WORD_BITS - 1);
            let mask = (u64::MAX << start) & (u64::MAX >> (WORD_BITS - 1 - end));
            self.set(page / WORD_BITS, word, mask);
            page += end - start + 1;
        }
    }

    fn set(&self, index: usize, word: &AtomicU64, mask: u64) {
        let summary = &self.summary[index / WORD_BITS];
        let bit = 1 << (index % WORD_BITS);
        // Most marks hit pages that are marked already: reading keeps the cache line shared.
        if word.load(Ordering::Relaxed) & mask != mask {
            word.fetch_or(mask, Ordering::AcqRel);
        }
        if summary.load(Ordering::Acquire) & bit == 0 {
            summary.fetch_or(bit, Ordering::AcqRel);
        }
    }

    fn is_set(&self, offset: usize) -> bool {
        let page = offset / PAGE_SIZE;
        self.words
            .get(page / WORD_BITS)
            .is_some_and(|word| word.load(Ordering::Acquire) & (1 << (page % WORD_BITS)) != 0)
    }

    /// The words whose summary bit is set.
    fn set_words(&self) -> impl Iterator<Item = (usize, u64)> {
        self.summary.iter().enumerate().flat_map(move |(index, summary)| {
            let bits = summary.load(Ordering::Acquire);
            (0..WORD_BITS).filter(move |bit| bits & (1 << bit) != 0).map(move |bit| {
                let word = index * WORD_BITS + bit;
                (word, self.words[word].load(Ordering::Acquire))
            })
        })
    }
}

impl std::fmt::Debug for DirtyBitmap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirtyBitmap")
            .field("base", &self.base)
            .field("pages", &(self.shared.words.len() * WORD_BITS))
            .finish_non_exhaustive()
    }
}

/// A part of a [`DirtyBitmap`], as vm-memory hands it out with each slice of memory.
#[derive(Clone, Copy)]
pub struct DirtySlice<'a> {
    shared: &'a Shared,
    base: usize,
}

impl std::fmt::Debug for DirtySlice<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirtySlice").field("base", &self.base).finish_non_exhaustive()
    }
}

impl<'a> WithBitmapSlice<'a> for DirtyBitmap {
    type S = DirtySlice<'a>;
}

impl Bitmap for DirtyBitmap {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.mark(offset, len);
    }

    fn dirty_at(&self, offset: usize) -> bool {
        self.shared.is_set(self.base.wrapping_add(offset))
    }

    fn slice_at(&self, offset: usize) -> DirtySlice<'_> {
        DirtySlice { shared: &self.shared, base: self.base.wrapping_add(offset) }
    }
}

impl NewBitmap for DirtyBitmap {
    fn with_len(len: usize) -> Self {
        Self::new(len)
    }
}

impl WithBitmapSlice<'_> for DirtySlice<'_> {
    type S = Self;
}

impl BitmapSlice for DirtySlice<'_> {}

impl Bitmap for DirtySlice<'_> {
    fn mark_dirty(&self, offset: usize, len: usize) {
        self.shared.mark(self.base.wrapping_add(offset), len);
    }

    fn dirty_at(&self, offset: usize) -> bool {
        self.shared.is_set(self.base.wrapping_add(offset))
    }

    fn slice_at(&self, offset: usize) -> Self {
        Self { base: self.base.wrapping_add(offset), ..*self }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn drained(bitmap: &DirtyBitmap) -> BTreeSet<usize> {
        let mut pages = BTreeSet::new();
        bitmap.drain(|word, bits| {
            pages.extend((0..64).filter(|bit| bits & (1 << bit) != 0).map(|bit| word * 64 + bit));
        });
        pages
    }

    proptest! {
        #[test]
        fn marks_exactly_the_pages_touched(
            marks in prop::collection::vec((0_usize..PAGE_SIZE * 9000, 0_usize..PAGE_SIZE * 200), 0..20),
        ) {
            let pages = 8200;
            let bitmap = DirtyBitmap::new(pages * PAGE_SIZE);
            let mut expected = BTreeSet::new();
            for (offset, length) in marks {
                bitmap.mark(offset, length);
                if length > 0 {
                    // The last word is whole: pages past the end share it.
                    let end = pages.next_multiple_of(64);
                    expected.extend(
                        (offset / PAGE_SIZE..=(offset + length - 1) / PAGE_SIZE).filter(|&p| p < end),
                    );
                }
            }
            prop_assert_eq!(bitmap.count(), expected.len() as u64);
            prop_assert_eq!(bitmap.is_empty(), expected.is_empty());
            prop_assert_eq!(drained(&bitmap), expected);
            prop_assert!(bitmap.is_empty());
        }
    }

    #[test]
    fn handles_at_an_offset_share_the_bits() {
        let bitmap = DirtyBitmap::new(PAGE_SIZE * 128);
        let upper = bitmap.at(PAGE_SIZE * 100);
        upper.mark(PAGE_SIZE + 5, 1);
        upper.slice_at(PAGE_SIZE * 2).slice_at(1).mark_dirty(0, 1);
        assert!(bitmap.dirty_at(PAGE_SIZE * 101));
        assert!(upper.dirty_at(PAGE_SIZE));
        assert_eq!(drained(&bitmap), BTreeSet::from([101, 102]));
        bitmap.mark(usize::MAX - 10, 100);
        assert!(bitmap.is_empty());
    }
}
