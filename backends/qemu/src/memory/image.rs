//! RAM as it was at one moment.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::{PAGE, Ram};

/// How many threads copy RAM at most, and how many pages are worth a thread.
const THREADS: usize = 4;
const SHARE: usize = 1024;

/// Pages that a snapshot keeps, shared with those taken after it.
#[derive(Debug, Default)]
struct Layer(Vec<u8>);

impl Layer {
    fn page(&self, slot: u32) -> &[u8; PAGE] {
        let start = slot as usize * PAGE;
        self.0[start..start + PAGE].try_into().expect("the length is that of a page")
    }

    fn push(&mut self, contents: &[u8; PAGE]) -> u32 {
        let slot = self.0.len() / PAGE;
        self.0.extend_from_slice(contents);
        u32::try_from(slot).expect("fewer pages than RAM has")
    }
}

/// Where a page's contents are.
#[derive(Clone, Copy, Debug)]
struct Entry {
    page: u32,
    /// Which layer, and which page of it.
    layer: u32,
    slot: u32,
}

/// RAM as it was at one moment: the pages that were not zero. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct MemoryImage(Arc<Contents>);

#[derive(Debug)]
struct Contents {
    layers: Vec<Arc<Layer>>,
    /// In the order of pages.
    entries: Vec<Entry>,
    /// Pages in the newest layer.
    own: usize,
    /// Pages that the image before had and this has not.
    vanished: usize,
}

impl Contents {
    fn contents(&self, entry: Entry) -> &[u8; PAGE] {
        self.layers[entry.layer as usize].page(entry.slot)
    }
}

impl MemoryImage {
    /// Freezes RAM. What equals `before`, which RAM was once equal to, is shared with it.
    ///
    /// # Safety
    /// The guest does not run, and no device writes.
    pub(crate) unsafe fn freeze(ram: &Ram, before: Option<&Self>) -> io::Result<Self> {
        let Some(Self(before)) = before else {
            // SAFETY: the caller's promise.
            return unsafe { Self::freeze_all(ram) };
        };
        let mut layer = Layer::default();
        let newest = u32::try_from(before.layers.len()).expect("few layers");
        let mut entries = Vec::with_capacity(before.entries.len());
        let mut earlier = before.entries.iter().copied().peekable();
        let (mut shared, mut replaced) = (0, 0);
        for page in ram.populated()?.into_iter().flatten() {
            // SAFETY: the caller's promise.
            let contents = unsafe { ram.page(page) };
            if contents == &[0; PAGE] {
                continue;
            }
            let page = u32::try_from(page).map_err(io::Error::other)?;
            while earlier.next_if(|entry| entry.page < page).is_some() {}
            match earlier.next_if(|entry| entry.page == page) {
                Some(entry) if before.contents(entry) == contents => {
                    shared += 1;
                    entries.push(entry);
                }
                earlier => {
                    replaced += usize::from(earlier.is_some());
                    entries.push(Entry { page, layer: newest, slot: layer.push(contents) });
                }
            }
        }
        layer.0.shrink_to_fit();
        let own = entries.len() - shared;
        let vanished = before.entries.len() - shared - replaced;
        let mut layers = before.layers.clone();
        layers.push(Arc::new(layer));
        let mut contents = Contents { layers, entries, own, vanished };
        contents.forget_unused();
        Ok(Self(Arc::new(contents)))
    }

    /// Freezes RAM for the first time: all of it is copied, by several threads, as the host takes
    /// longer to find room for a page than to copy it.
    ///
    /// # Safety
    /// As for [`MemoryImage::freeze`].
    unsafe fn freeze_all(ram: &Ram) -> io::Result<Self> {
        let pages: Vec<usize> = ram.populated()?.into_iter().flatten().collect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
        let share = pages.len().div_ceil(threads).max(SHARE);
        let copy = |number: usize, pages: &[usize]| {
            let number = u32::try_from(number).expect("few threads");
            let (mut layer, mut entries) = (Layer::default(), Vec::with_capacity(pages.len()));
            for &page in pages {
                // SAFETY: the caller's promise.
                let contents = unsafe { ram.page(page) };
                if contents != &[0; PAGE] {
                    let page = u32::try_from(page).expect("checked against the host's memory");
                    entries.push(Entry { page, layer: number, slot: layer.push(contents) });
                }
            }
            layer.0.shrink_to_fit();
            (Arc::new(layer), entries)
        };
        let copied: Vec<_> = std::thread::scope(|scope| {
            let start = |(number, pages)| scope.spawn(move || copy(number, pages));
            let threads: Vec<_> = pages.chunks(share).enumerate().map(start).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("copying does not fail"))
                .collect()
        });
        let (layers, entries): (Vec<_>, Vec<_>) = copied.into_iter().unzip();
        let entries = entries.concat();
        let own = entries.len();
        Ok(Self(Arc::new(Contents { layers, entries, own, vanished: 0 })))
    }

    /// The image whose pages are those of a file of `length` bytes.
    pub(crate) fn read(file: &File, length: u64) -> io::Result<Self> {
        let mut layer = Layer::default();
        let mut entries = Vec::new();
        let mut contents = [0; PAGE];
        for page in super::extents::populated(file, length)?.into_iter().flatten() {
            file.read_exact_at(&mut contents, (page * PAGE) as u64)?;
            if contents != [0; PAGE] {
                let page = u32::try_from(page).map_err(io::Error::other)?;
                entries.push(Entry { page, layer: 0, slot: layer.push(&contents) });
            }
        }
        let own = entries.len();
        Ok(Self(Arc::new(Contents { layers: vec![Arc::new(layer)], entries, own, vanished: 0 })))
    }

    /// Pages that are not zero.
    pub(crate) fn pages(&self) -> u64 {
        self.0.entries.len() as u64
    }

    /// Pages that differ from the image before.
    pub(crate) fn changed(&self) -> u64 {
        (self.0.own + self.0.vanished) as u64
    }

    /// Bytes that it holds beside those of the image before.
    pub(crate) fn own_bytes(&self) -> u64 {
        (self.0.own * PAGE) as u64
    }

    /// Calls `visit` for each page that is not zero, in order.
    pub(crate) fn for_each<E>(
        &self,
        mut visit: impl FnMut(u64, &[u8; PAGE]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.0
            .entries
            .iter()
            .try_for_each(|&entry| visit(entry.page.into(), self.0.contents(entry)))
    }

    /// Makes RAM equal to the image; how many pages that took.
    ///
    /// # Safety
    /// The guest does not run, and no device looks at memory.
    pub(crate) unsafe fn put_back(&self, ram: &Ram) -> io::Result<u64> {
        let mut changed = 0;
        let mut entries = self.0.entries.iter().copied().peekable();
        let mut put = |entry: Entry| {
            // SAFETY: the caller's promise.
            unsafe { ram.put_page(entry.page as usize, self.0.contents(entry)) };
            changed += 1;
        };
        let (mut clear, mut unused) = (Runs::default(), Runs::default());
        for page in ram.populated()?.into_iter().flatten() {
            while let Some(entry) = entries.next_if(|entry| (entry.page as usize) < page) {
                put(entry);
            }
            // SAFETY: the caller's promise; the reference ends before the page is written.
            let now = unsafe { ram.page(page) };
            match entries.next_if(|entry| entry.page as usize == page) {
                Some(entry) if self.0.contents(entry) == now => {}
                Some(entry) => put(entry),
                // Nobody has written to it since it was made zero: to look at it again and again
                // would cost more than to have it back.
                None if now == &[0; PAGE] => unused.push(page),
                None => clear.push(page),
            }
        }
        entries.for_each(&mut put);
        for run in clear.0 {
            changed += run.len() as u64;
            // SAFETY: the caller's promise.
            unsafe { ram.clear(run) }?;
        }
        for run in unused.0 {
            // SAFETY: the caller's promise.
            unsafe { ram.release(run) }?;
        }
        Ok(changed)
    }

    /// How many pages of RAM differ; the guest may run.
    pub(crate) fn differences(&self, ram: &Ram) -> io::Result<u64> {
        let mut now = [0; PAGE];
        let mut count = 0;
        let mut entries = self.0.entries.iter().copied().peekable();
        for page in ram.populated()?.into_iter().flatten() {
            while entries.next_if(|entry| (entry.page as usize) < page).is_some() {
                count += 1;
            }
            ram.copy_page(page, &mut now);
            let equal = match entries.next_if(|entry| entry.page as usize == page) {
                Some(entry) => self.0.contents(entry) == &now,
                None => now == [0; PAGE],
            };
            count += u64::from(!equal);
        }
        Ok(count + entries.count() as u64)
    }
}

/// Pages in order, as runs of neighbours.
#[derive(Debug, Default)]
struct Runs(Vec<std::ops::Range<usize>>);

impl Runs {
    fn push(&mut self, page: usize) {
        match self.0.last_mut() {
            Some(run) if run.end == page => run.end += 1,
            _ => self.0.push(page..page + 1),
        }
    }
}

impl Contents {
    /// Drops the layers of which no page is left, so that a long line of snapshots holds no more
    /// than what differs.
    fn forget_unused(&mut self) {
        let mut used = vec![false; self.layers.len()];
        for entry in &self.entries {
            used[entry.layer as usize] = true;
        }
        let mut places = Vec::with_capacity(used.len());
        let mut next = 0;
        for used in &used {
            places.push(next);
            next += u32::from(*used);
        }
        for entry in &mut self.entries {
            entry.layer = places[entry.layer as usize];
        }
        let mut used = used.into_iter();
        self.layers.retain(|_| used.next().unwrap_or(false));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGES: usize = 256;

    fn fill(ram: &Ram, page: usize, value: u8) {
        // SAFETY: nobody else uses this memory.
        unsafe { ram.put_page(page, &[value; PAGE]) };
    }

    fn contents(ram: &Ram) -> Vec<u8> {
        let mut page = [0; PAGE];
        (0..PAGES)
            .map(|index| {
                ram.copy_page(index, &mut page);
                assert!(page.iter().all(|byte| *byte == page[0]));
                page[0]
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_tree_of_images_goes_back(
            writes in prop::collection::vec((0..PAGES, 0_u8..3), 1..300),
            order in prop::collection::vec(any::<prop::sample::Index>(), 1..12),
        ) {
            let ram = Ram::new(PAGES * PAGE).unwrap();
            let mut taken: Vec<(MemoryImage, Vec<u8>)> = Vec::new();
            let mut writes = writes.chunks(40).cycle();
            for index in order {
                for &(page, value) in writes.next().unwrap() {
                    fill(&ram, page, value);
                }
                let before = taken.last().map(|(image, _)| image.clone());
                // SAFETY: nobody else uses this memory.
                let image = unsafe { MemoryImage::freeze(&ram, before.as_ref()) }.unwrap();
                prop_assert_eq!(image.differences(&ram).unwrap(), 0);
                taken.push((image, contents(&ram)));
                let (image, expected) = index.get(&taken);
                let different = image.differences(&ram).unwrap();
                // SAFETY: as above.
                let changed = unsafe { image.put_back(&ram) }.unwrap();
                prop_assert_eq!(changed, different);
                prop_assert_eq!(&contents(&ram), expected);
            }
        }
    }

    #[test]
    fn pages_that_are_not_used_again_go_back_to_the_host() {
        let ram = Ram::new(PAGES * PAGE).unwrap();
        fill(&ram, 0, 1);
        // SAFETY: nobody else uses this memory.
        let image = unsafe { MemoryImage::freeze(&ram, None) }.unwrap();
        let held = || ram.populated().unwrap().into_iter().map(|range| range.len()).sum::<usize>();
        for (round, page) in [10, 20, 20, 30].into_iter().enumerate() {
            fill(&ram, page, 2);
            // SAFETY: as above.
            assert_eq!(unsafe { image.put_back(&ram) }.unwrap(), 1);
            // The first page, and the one that was just made zero.
            assert_eq!(held(), 2, "round {round}");
        }
    }

    #[test]
    fn the_shares_of_several_threads_are_one_image() {
        let count = 2 * SHARE + 7;
        let ram = Ram::new(count * PAGE).unwrap();
        let value = |page: usize| u8::try_from(page % 251).unwrap();
        (0..count).for_each(|page| fill(&ram, page, value(page)));
        // SAFETY: nobody else uses this memory.
        let image = unsafe { MemoryImage::freeze(&ram, None) }.unwrap();
        assert_eq!(image.pages(), (0..count).filter(|page| value(*page) != 0).count() as u64);
        (0..count).for_each(|page| fill(&ram, page, 255));
        // SAFETY: as above.
        assert_eq!(unsafe { image.put_back(&ram) }.unwrap(), count as u64);
        let mut now = [0; PAGE];
        for page in 0..count {
            ram.copy_page(page, &mut now);
            assert_eq!(now, [value(page); PAGE], "page {page}");
        }
    }

    #[test]
    fn what_did_not_change_is_shared() {
        let ram = Ram::new(PAGES * PAGE).unwrap();
        (0..200).for_each(|page| fill(&ram, page, 1));
        // SAFETY: nobody else uses this memory.
        let first = unsafe { MemoryImage::freeze(&ram, None) }.unwrap();
        fill(&ram, 5, 2);
        // SAFETY: as above.
        let second = unsafe { MemoryImage::freeze(&ram, Some(&first)) }.unwrap();
        assert_eq!((first.own_bytes(), second.own_bytes()), (200 * PAGE as u64, PAGE as u64));
        assert_eq!((second.pages(), second.changed()), (200, 1));
        (100..200).for_each(|page| fill(&ram, page, 0));
        // SAFETY: as above.
        let third = unsafe { MemoryImage::freeze(&ram, Some(&second)) }.unwrap();
        assert_eq!((third.pages(), third.own_bytes()), (100, 0));
        assert_eq!(third.changed(), 100);
    }
}
