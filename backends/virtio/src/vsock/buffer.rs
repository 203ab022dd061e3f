//! A bounded queue of bytes.

/// The smallest allocation, in bytes.
const SMALLEST: usize = 4 << 10;

/// A queue of bytes in a ring that grows up to a limit and is reused.
#[derive(Default)]
pub(super) struct ByteQueue {
    /// A power of two, or nothing.
    storage: Box<[u8]>,
    start: usize,
    length: usize,
}

impl ByteQueue {
    pub(super) const fn len(&self) -> usize {
        self.length
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn clear(&mut self) {
        self.start = 0;
        self.length = 0;
    }

    /// Appends `count` bytes that `fill` writes, in one or two pieces. The caller keeps the limit.
    pub(super) fn push_with(&mut self, count: usize, mut fill: impl FnMut(&mut [u8])) {
        self.reserve(count);
        let end = (self.start + self.length) & self.mask();
        let first = count.min(self.storage.len() - end);
        if first > 0 {
            fill(&mut self.storage[end..end + first]);
        }
        if count > first {
            fill(&mut self.storage[..count - first]);
        }
        self.length += count;
    }

    /// Takes up to `count` bytes, which `take` is given in one or two pieces; how many there were.
    pub(super) fn pop_with(&mut self, count: usize, mut take: impl FnMut(&[u8])) -> usize {
        let count = count.min(self.length);
        let first = count.min(self.storage.len() - self.start);
        if first > 0 {
            take(&self.storage[self.start..self.start + first]);
        }
        if count > first {
            take(&self.storage[..count - first]);
        }
        self.length -= count;
        self.start = if self.length == 0 { 0 } else { (self.start + count) & self.mask() };
        count
    }

    const fn mask(&self) -> usize {
        self.storage.len().wrapping_sub(1)
    }

    fn reserve(&mut self, count: usize) {
        let needed = self.length + count;
        if needed <= self.storage.len() {
            return;
        }
        let mut storage = vec![0; needed.next_power_of_two().max(SMALLEST)].into_boxed_slice();
        let length = self.length;
        let mut filled = 0;
        self.pop_with(length, |piece| {
            storage[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
        });
        *self = Self { storage, start: 0, length };
    }
}

impl std::fmt::Debug for ByteQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ByteQueue").field("length", &self.length).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_a_queue(steps in prop::collection::vec((any::<bool>(), 0_usize..9000), 0..60)) {
            let mut queue = ByteQueue::default();
            let mut expected = VecDeque::new();
            let mut next = 0_u8;
            for (push, count) in steps {
                if push {
                    queue.push_with(count, |piece| piece.fill_with(|| {
                        next = next.wrapping_add(1);
                        expected.push_back(next);
                        next
                    }));
                } else {
                    let mut taken = Vec::new();
                    let popped = queue.pop_with(count, |piece| taken.extend_from_slice(piece));
                    prop_assert_eq!(popped, count.min(expected.len()));
                    prop_assert_eq!(taken, expected.drain(..popped).collect::<Vec<_>>());
                }
                prop_assert_eq!(queue.len(), expected.len());
            }
        }
    }
}
