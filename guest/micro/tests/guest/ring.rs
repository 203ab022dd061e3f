//! The device's side of a split virtqueue (virtio 1.3 section 2.7).

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::registers::QueueAddresses;

const NEXT: u16 = 1;

/// A queue, and how far the device has come in it.
#[derive(Debug)]
pub(crate) struct Ring {
    queue: QueueAddresses,
    event_idx: bool,
    seen: u16,
    used: u16,
}

/// A chain of buffers that the driver made available: addresses and lengths.
#[derive(Debug)]
pub(crate) struct Chain {
    head: u16,
    pub(crate) buffers: Vec<(u64, u32)>,
}

impl Ring {
    pub(crate) fn new(queue: QueueAddresses, event_idx: bool) -> Self {
        assert!(queue.ready && queue.size.is_power_of_two());
        Self { queue, event_idx, seen: 0, used: 0 }
    }

    fn get<T: vm_memory::ByteValued>(memory: &GuestMemoryMmap, address: u64) -> T {
        memory.read_obj(GuestAddress(address)).expect("within RAM")
    }

    fn slot(&self, index: u16) -> u64 {
        u64::from(u32::from(index) % self.queue.size)
    }

    /// The next chain, if there is one.
    pub(crate) fn pop(&mut self, memory: &GuestMemoryMmap) -> Option<Chain> {
        let index: u16 = Self::get(memory, self.queue.available + 2);
        if index == self.seen {
            return None;
        }
        let head = Self::get(memory, self.queue.available + 4 + 2 * self.slot(self.seen));
        self.seen = self.seen.wrapping_add(1);
        if self.event_idx {
            // Asks for a notification of the next chain.
            let event = self.queue.used + 4 + 8 * u64::from(self.queue.size);
            memory.write_obj(self.seen, GuestAddress(event)).unwrap();
        }
        let mut buffers = Vec::new();
        let mut at: u16 = head;
        loop {
            assert!(u32::from(at) < self.queue.size && buffers.len() < 4, "a sound chain");
            let descriptor = self.queue.descriptors + 16 * u64::from(at);
            buffers.push((Self::get(memory, descriptor), Self::get(memory, descriptor + 8)));
            if Self::get::<u16>(memory, descriptor + 12) & NEXT == 0 {
                return Some(Chain { head, buffers });
            }
            at = Self::get(memory, descriptor + 14);
        }
    }

    /// Gives a chain back. Whether the driver wants an interrupt.
    pub(crate) fn push(&mut self, memory: &GuestMemoryMmap, chain: &Chain, written: u32) -> bool {
        let element = self.queue.used + 4 + 8 * self.slot(self.used);
        memory.write_obj(u32::from(chain.head), GuestAddress(element)).unwrap();
        memory.write_obj(written, GuestAddress(element + 4)).unwrap();
        let before = self.used;
        self.used = self.used.wrapping_add(1);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        memory.write_obj(self.used, GuestAddress(self.queue.used + 2)).unwrap();
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        if self.event_idx {
            let event = self.queue.available + 4 + 2 * u64::from(self.queue.size);
            Self::get::<u16>(memory, event) == before
        } else {
            Self::get::<u16>(memory, self.queue.available) & 1 == 0
        }
    }
}
