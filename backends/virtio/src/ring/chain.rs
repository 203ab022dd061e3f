//! Descriptor chains, walked and checked as a whole before a device sees them.

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::Cursor;
use crate::memory::GuestMemory;

/// The most descriptors of a chain in an indirect table. Linux makes such chains longer than the
/// queue; nobody needs more than this.
const MAX_INDIRECT: u16 = 1024;
/// The size of a descriptor in memory.
const DESCRIPTOR_SIZE: u64 = 16;

/// One buffer of a chain: inside of one region of RAM, not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) address: GuestAddress,
    pub(super) length: u32,
}

/// A checked descriptor chain: first what the device reads, then what it writes. Reused from one
/// request to the next, so that none allocates.
#[derive(Debug, Default)]
pub struct Chain {
    head: u16,
    readable: Vec<Segment>,
    writable: Vec<Segment>,
    readable_length: u32,
    writable_length: u32,
}

/// Why a chain is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadChain {
    /// It breaks this rule.
    Rule(&'static str),
    /// These bytes are not RAM.
    Buffer { address: u64, length: u64 },
}

/// A table of descriptors.
#[derive(Clone, Copy)]
struct Table {
    address: GuestAddress,
    /// How many descriptors it has.
    size: u16,
    indirect: bool,
}

impl Chain {
    /// The index of the first descriptor: the chain's name in the used ring.
    pub const fn head(&self) -> u16 {
        self.head
    }

    /// How many bytes the device may read; at most 2^32 - 1 with what it may write.
    pub const fn readable_length(&self) -> u32 {
        self.readable_length
    }

    /// How many bytes the device may write.
    pub const fn writable_length(&self) -> u32 {
        self.writable_length
    }

    /// A cursor over what the device reads.
    pub fn reader<'a>(&'a self, memory: &'a GuestMemory) -> Cursor<'a> {
        Cursor::new(memory, &self.readable, self.readable_length)
    }

    /// A cursor over what the device writes.
    pub fn writer<'a>(&'a self, memory: &'a GuestMemory) -> Cursor<'a> {
        Cursor::new(memory, &self.writable, self.writable_length)
    }

    /// The buffers that the device may write, with their guest physical addresses.
    pub fn writable_buffers(&self) -> impl Iterator<Item = (GuestAddress, u32)> {
        self.writable.iter().map(|segment| (segment.address, segment.length))
    }

    /// Reads the chain that starts at descriptor `head` of the queue's table.
    pub(super) fn walk(
        &mut self,
        memory: &GuestMemory,
        table: GuestAddress,
        queue_size: u16,
        head: u16,
    ) -> Result<(), BadChain> {
        self.head = head;
        self.readable.clear();
        self.writable.clear();
        self.readable_length = 0;
        self.writable_length = 0;
        let mut table = Table { address: table, size: queue_size, indirect: false };
        let mut next = head;
        let mut left = queue_size;
        loop {
            if left == 0 {
                return Err(BadChain::Rule("it is longer than its table: a loop"));
            }
            left -= 1;
            let descriptor = table.read(memory, next)?;
            if descriptor.refers_to_indirect_table() {
                table = table.enter(&descriptor)?;
                left = table.size;
                next = 0;
                continue;
            }
            self.push(memory, &descriptor)?;
            if !descriptor.has_next() {
                return Ok(());
            }
            next = descriptor.next();
        }
    }

    fn push(&mut self, memory: &GuestMemory, descriptor: &Descriptor) -> Result<(), BadChain> {
        let address = descriptor.addr();
        let length = descriptor.len();
        (self.readable_length.checked_add(self.writable_length))
            .and_then(|total| total.checked_add(length))
            .ok_or(BadChain::Rule("its buffers exceed 4 GiB"))?;
        if !descriptor.is_write_only() && !self.writable.is_empty() {
            return Err(BadChain::Rule("a readable buffer follows a writable one"));
        }
        if length == 0 {
            return Ok(());
        }
        if memory.get_slice(address, length as usize).is_err() {
            return Err(BadChain::Buffer { address: address.0, length: length.into() });
        }
        let segment = Segment { address, length };
        if descriptor.is_write_only() {
            self.writable.push(segment);
            self.writable_length += length;
        } else {
            self.readable.push(segment);
            self.readable_length += length;
        }
        Ok(())
    }
}

impl Table {
    fn read(self, memory: &GuestMemory, index: u16) -> Result<Descriptor, BadChain> {
        if index >= self.size {
            return Err(BadChain::Rule("a descriptor's index is beyond its table"));
        }
        let offset = u64::from(index) * DESCRIPTOR_SIZE;
        let address = self.address.0.wrapping_add(offset);
        memory
            .read_obj(GuestAddress(address))
            .map_err(|_| BadChain::Buffer { address, length: DESCRIPTOR_SIZE })
    }

    /// The indirect table that a descriptor of this one refers to.
    fn enter(self, descriptor: &Descriptor) -> Result<Self, BadChain> {
        if self.indirect {
            return Err(BadChain::Rule("an indirect table refers to another"));
        }
        if descriptor.has_next() {
            return Err(BadChain::Rule("a descriptor is indirect and has a successor"));
        }
        let length = u64::from(descriptor.len());
        if length == 0 || !length.is_multiple_of(DESCRIPTOR_SIZE) {
            return Err(BadChain::Rule("an indirect table is empty or has half a descriptor"));
        }
        let size = u16::try_from(length / DESCRIPTOR_SIZE).ok().filter(|&n| n <= MAX_INDIRECT);
        let size = size.ok_or(BadChain::Rule("an indirect table is too long"))?;
        Ok(Self { address: descriptor.addr(), size, indirect: true })
    }
}
