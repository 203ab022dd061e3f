//! Page numbers from the guest, joined into ranges.

use std::ops::Range;

/// Joins neighbouring pages, in whichever order they come, so that the host frees ranges.
#[derive(Debug, Default)]
pub(super) struct Pages(Vec<u32>);

impl Pages {
    /// Adds a page by its number.
    pub(super) fn add(&mut self, page: u32) {
        self.0.push(page);
    }

    /// Takes all ranges out, in order and without overlaps.
    pub(super) fn take_ranges(&mut self) -> Vec<Range<u64>> {
        self.0.sort_unstable();
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for page in self.0.drain(..).map(u64::from) {
            match ranges.last_mut() {
                Some(range) if page <= range.end => range.end = range.end.max(page + 1),
                _ => ranges.push(page..page + 1),
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_hold_exactly_the_pages(list in prop::collection::vec(0..300_u32, 0..200)) {
            let mut pages = Pages::default();
            for &page in &list {
                pages.add(page);
            }
            let ranges = pages.take_ranges();
            let held: Vec<u64> = ranges.iter().cloned().flatten().collect();
            let expected: BTreeSet<u64> = list.into_iter().map(u64::from).collect();
            prop_assert_eq!(held, expected.into_iter().collect::<Vec<_>>());
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
