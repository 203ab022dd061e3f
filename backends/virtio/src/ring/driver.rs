//! A guest's driver for tests: builds chains, makes them available, takes used buffers.

use std::collections::HashMap;

use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::memory::GuestMemory;

/// How much RAM a test's guest has.
pub(crate) const RAM: u64 = 4 << 20;
const QUEUE_SPACE: u64 = 0x4000;

/// RAM in one piece from 0, and a hole above it.
pub(crate) fn memory() -> GuestMemory {
    GuestMemory::from_ranges(&[(GuestAddress(0), usize::try_from(RAM).unwrap())]).unwrap()
}

/// The driver's side of one queue.
#[derive(Clone, Debug)]
pub(crate) struct DriverQueue {
    base: u64,
    size: u16,
    event_index: bool,
    available: u16,
    used: u16,
    free: Vec<u16>,
    /// The descriptors of each chain under way, by head.
    chains: HashMap<u16, Vec<u16>>,
}

impl DriverQueue {
    /// Queue number `index` of a device: its rings lie at the start of RAM.
    pub(crate) fn new(index: u64, size: u16, event_index: bool) -> Self {
        Self {
            base: index * QUEUE_SPACE + 0x1000,
            size,
            event_index,
            available: 0,
            used: 0,
            free: (0..size).rev().collect(),
            chains: HashMap::new(),
        }
    }

    fn available_ring(&self) -> u64 {
        self.base + 0x2000
    }

    fn used_ring(&self) -> u64 {
        self.base + 0x3000
    }

    /// The device's side.
    pub(crate) fn queue(&self) -> Queue {
        let mut queue = Queue::new(self.size).unwrap();
        queue.try_set_desc_table_address(GuestAddress(self.base)).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(self.available_ring())).unwrap();
        queue.try_set_used_ring_address(GuestAddress(self.used_ring())).unwrap();
        queue.set_event_idx(self.event_index);
        queue.set_ready(true);
        queue
    }

    /// Writes a descriptor as it is, whatever it says.
    pub(crate) fn write_descriptor(
        &self,
        memory: &GuestMemory,
        index: u16,
        (address, length, flags, next): (u64, u32, u16, u16),
    ) {
        let descriptor = RawDescriptor::from(Descriptor::new(address, length, flags, next));
        let place = GuestAddress(self.base + 16 * u64::from(index));
        memory.write_obj(descriptor, place).unwrap();
    }

    /// Puts a head into the available ring, whatever it is.
    pub(crate) fn offer(&mut self, memory: &GuestMemory, head: u16) {
        let place = self.available_ring() + 4 + 2 * u64::from(self.available % self.size);
        memory.write_obj(head, GuestAddress(place)).unwrap();
        self.available = self.available.wrapping_add(1);
        memory.write_obj(self.available, GuestAddress(self.available_ring() + 2)).unwrap();
    }

    /// Makes a chain of buffers available: `(address, length, device writes)`. False when the
    /// table is full.
    pub(crate) fn add(&mut self, memory: &GuestMemory, buffers: &[(u64, u32, bool)]) -> bool {
        if self.free.len() < buffers.len() {
            return false;
        }
        let indexes = self.free.split_off(self.free.len() - buffers.len());
        for (place, &(address, length, write)) in buffers.iter().enumerate() {
            let next = indexes.get(place + 1).copied();
            let flags = u16::from(next.is_some()) | u16::from(write) << 1;
            let fields = (address, length, flags, next.unwrap_or(0));
            self.write_descriptor(memory, indexes[place], fields);
        }
        let head = indexes[0];
        self.chains.insert(head, indexes);
        self.offer(memory, head);
        true
    }

    /// The head made available since an earlier state of this queue.
    pub(crate) fn newest(&self, memory: &GuestMemory, before: &Self) -> u16 {
        let place = self.available_ring() + 4 + 2 * u64::from(before.available % self.size);
        memory.read_obj(GuestAddress(place)).unwrap()
    }

    /// Takes the next used chain: its head and how much was written.
    pub(crate) fn take_used(&mut self, memory: &GuestMemory) -> Option<(u16, u32)> {
        let index: u16 = memory.read_obj(GuestAddress(self.used_ring() + 2)).unwrap();
        if index == self.used {
            return None;
        }
        let place = self.used_ring() + 4 + 8 * u64::from(self.used % self.size);
        let head: u32 = memory.read_obj(GuestAddress(place)).unwrap();
        let written: u32 = memory.read_obj(GuestAddress(place + 4)).unwrap();
        self.used = self.used.wrapping_add(1);
        let event = GuestAddress(self.available_ring() + 4 + 2 * u64::from(self.size));
        memory.write_obj(self.used, event).unwrap();
        let head = u16::try_from(head).unwrap();
        self.free.extend(self.chains.remove(&head).unwrap_or_default());
        Some((head, written))
    }
}

mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::device::DeviceError;
    use crate::ring::{Chain, Ring};

    fn pop(
        memory: &GuestMemory,
        driver: &DriverQueue,
        chain: &mut Chain,
    ) -> Result<bool, DeviceError> {
        let mut queues = [driver.queue()];
        Ring::ready(0, &mut queues, memory).unwrap().pop(chain)
    }

    #[test]
    fn cursors_cross_buffers_and_stop_at_the_end() {
        let memory = memory();
        let mut driver = DriverQueue::new(0, 8, true);
        let mut chain = Chain::default();
        assert!(!pop(&memory, &driver, &mut chain).unwrap());
        let buffers = [
            (0x10_0000, 3, false),
            (0x10_1000, 0, false),
            (0x10_2000, 5, false),
            (0x10_3000, 4, true),
            (0x10_4000, 4, true),
        ];
        assert!(driver.add(&memory, &buffers));
        memory.write_slice(b"abc", GuestAddress(0x10_0000)).unwrap();
        memory.write_slice(b"defgh", GuestAddress(0x10_2000)).unwrap();
        assert!(pop(&memory, &driver, &mut chain).unwrap());
        assert_eq!((chain.readable_length(), chain.writable_length()), (8, 8));
        let mut bytes = [0; 6];
        let mut reader = chain.reader(&memory);
        reader.skip(1);
        assert_eq!(reader.read(&mut bytes), 6);
        assert_eq!(&bytes, b"bcdefg");
        assert_eq!(reader.remaining(), 1);
        assert_eq!(reader.read(&mut bytes), 1);
        assert_eq!(reader.read(&mut bytes), 0);
        assert_eq!(chain.writer(&memory).write(b"0123456789"), 8);
        assert_eq!(memory.read_obj::<[u8; 4]>(GuestAddress(0x10_4000)).unwrap(), *b"4567");
        assert_eq!(chain.writer(&memory).take(3).write(b"xyz!"), 3);
    }

    #[test]
    fn refuses_each_kind_of_bad_chain() {
        let bad = |descriptors: &[(u64, u32, u16, u16)], head: u16| {
            let memory = memory();
            let mut driver = DriverQueue::new(0, 4, false);
            for (index, &fields) in descriptors.iter().enumerate() {
                driver.write_descriptor(&memory, u16::try_from(index).unwrap(), fields);
            }
            // An indirect table that refers to itself.
            memory.write_slice(&[0; 64], GuestAddress(0x20_0000)).unwrap();
            let nested = RawDescriptor::from(Descriptor::new(0x20_0000, 16, 4, 0));
            memory.write_obj(nested, GuestAddress(0x20_0000)).unwrap();
            driver.offer(&memory, head);
            pop(&memory, &driver, &mut Chain::default()).unwrap_err().to_string()
        };
        assert!(bad(&[], 4).contains("beyond its table"));
        assert!(bad(&[(0, 1, 1, 9)], 0).contains("beyond its table"));
        assert!(bad(&[(0, 1, 1, 0)], 0).contains("loop"));
        assert!(bad(&[(0, 1, 3, 1), (0, 1, 0, 0)], 0).contains("follows a writable"));
        assert!(bad(&[(RAM - 1, 2, 0, 0)], 0).contains("not RAM"));
        assert!(bad(&[(u64::MAX, 2, 0, 0)], 0).contains("not RAM"));
        assert!(bad(&[(0x20_0000, 16, 4, 0)], 0).contains("refers to another"));
        assert!(bad(&[(0x20_0000, 15, 4, 0)], 0).contains("half a descriptor"));
        assert!(bad(&[(0x20_0000, 16, 5, 1)], 0).contains("successor"));
        assert!(bad(&[(RAM, 16, 4, 0)], 0).contains("not RAM"));
        assert!(bad(&[(0, u32::MAX, 4, 0)], 0).contains("half"));
        assert!(bad(&[(0, 16 << 20, 4, 0)], 0).contains("too long"));
    }

    #[test]
    fn a_ring_that_runs_ahead_of_its_size_is_refused() {
        let memory = memory();
        let mut driver = DriverQueue::new(0, 4, false);
        for _ in 0..5 {
            driver.offer(&memory, 0);
        }
        let error = pop(&memory, &driver, &mut Chain::default()).unwrap_err();
        assert!(matches!(error, DeviceError::Ring { queue: 0, .. }));
    }

    proptest! {
        /// Whatever the descriptors say, the walk ends and yields only RAM.
        #[test]
        fn walks_end_and_stay_inside_of_ram(
            table in prop::collection::vec(
                (0..RAM + 0x1000, prop_oneof![0_u32..0x2000, any::<u32>()], 0_u16..8, 0_u16..10), 8),
            indirect in prop::collection::vec(any::<u8>(), 256),
            head in 0_u16..10,
        ) {
            let memory = memory();
            let mut driver = DriverQueue::new(0, 8, true);
            memory.write_slice(&indirect, GuestAddress(0x20_0000)).unwrap();
            for (index, &(address, length, flags, next)) in table.iter().enumerate() {
                let address = if flags & 4 != 0 { 0x20_0000 } else { address };
                driver.write_descriptor(&memory, u16::try_from(index).unwrap(), (address, length, flags, next));
            }
            driver.offer(&memory, head);
            let mut chain = Chain::default();
            if pop(&memory, &driver, &mut chain).is_ok() {
                for (address, length) in chain.writable_buffers() {
                    prop_assert!(address.0 + u64::from(length) <= RAM);
                }
                let total: u32 = chain.writable_buffers().map(|(_, length)| length).sum();
                prop_assert_eq!(total, chain.writable_length());
            }
        }
    }
}
