//! A position in the buffers of a chain.

use vm_memory::{GuestMemoryBackend, VolatileSlice};

use super::chain::Segment;
use crate::memory::{DirtySlice, GuestMemory};

/// Walks over the bytes of one half of a [`Chain`](super::Chain), wherever the guest cut them
/// into buffers. Copies are bounded by what is left; writes are recorded as dirty.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    memory: &'a GuestMemory,
    segments: &'a [Segment],
    /// How much of the first segment is behind us.
    offset: u32,
    remaining: u32,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(
        memory: &'a GuestMemory,
        segments: &'a [Segment],
        remaining: u32,
    ) -> Self {
        Self { memory, segments, offset: 0, remaining }
    }

    /// How many bytes are left.
    pub const fn remaining(&self) -> u32 {
        self.remaining
    }

    /// Limits what is left.
    #[must_use]
    pub fn take(mut self, limit: u32) -> Self {
        self.remaining = self.remaining.min(limit);
        self
    }

    /// The next bytes that are contiguous, at most `limit`; `None` at the end.
    pub fn next_slice(&mut self, limit: usize) -> Option<VolatileSlice<'a, DirtySlice<'a>>> {
        let segment = self.segments.first()?;
        let left = segment.length - self.offset;
        let length = left.min(self.remaining).min(u32::try_from(limit).unwrap_or(u32::MAX));
        if length == 0 {
            return None;
        }
        let address = segment.address.0 + u64::from(self.offset);
        // The chain's walk has checked the whole segment.
        let slice =
            self.memory.get_slice(vm_memory::GuestAddress(address), length as usize).ok()?;
        self.remaining -= length;
        if length == left {
            self.segments = &self.segments[1..];
            self.offset = 0;
        } else {
            self.offset += length;
        }
        Some(slice)
    }

    /// Copies from the guest; how many bytes there were.
    pub fn read(&mut self, mut bytes: &mut [u8]) -> usize {
        let wanted = bytes.len();
        while let Some(slice) = self.next_slice(bytes.len()) {
            let copied = slice.copy_to(bytes);
            bytes = &mut bytes[copied..];
        }
        wanted - bytes.len()
    }

    /// Copies to the guest; for how many bytes there was room.
    pub fn write(&mut self, mut bytes: &[u8]) -> usize {
        let wanted = bytes.len();
        while let Some(slice) = self.next_slice(bytes.len()) {
            slice.copy_from(bytes);
            bytes = &bytes[slice.len()..];
        }
        wanted - bytes.len()
    }

    /// Goes on by `count` bytes, or to the end.
    pub fn skip(&mut self, count: u32) {
        let mut left = count;
        while let Some(slice) = self.next_slice(left as usize) {
            left -= u32::try_from(slice.len()).unwrap_or(left);
        }
    }
}
