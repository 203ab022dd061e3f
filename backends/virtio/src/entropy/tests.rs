//! The device driven as a guest's driver would.

use proptest::prelude::*;
use virtio_queue::Queue;
use vm_memory::{Bytes, GuestAddress};

use super::Entropy;
use super::state::{EntropySource, EntropyState};
use crate::device::{Device, RestoreMode};
use crate::memory::GuestMemory;
use crate::ring::driver::{DriverQueue, memory};
use crate::state::{DeviceState, STATE_VERSION};

const DATA: u64 = 0x10_0000;

struct Guest {
    device: Entropy,
    memory: GuestMemory,
    driver: DriverQueue,
    queues: Vec<Queue>,
}

impl Guest {
    fn new() -> Self {
        let driver = DriverQueue::new(0, 64, true);
        let queues = vec![driver.queue()];
        Self { device: Entropy::new().0, memory: memory(), driver, queues }
    }

    fn run(&mut self) {
        while self.device.process_queue(0, &mut self.queues, &self.memory).unwrap().again != 0 {}
    }

    fn ask(&mut self, length: u32) -> Vec<u8> {
        assert!(self.driver.add(&self.memory, &[(DATA, length, true)]));
        self.run();
        let (_, written) = self.driver.take_used(&self.memory).unwrap();
        let mut bytes = vec![0; written as usize];
        self.memory.read_slice(&mut bytes, GuestAddress(DATA)).unwrap();
        bytes
    }

    fn seed(&mut self, seed: u64) {
        let source = EntropySource::Seeded { seed, position: 0 };
        let state = DeviceState::Entropy(EntropyState { version: STATE_VERSION, source });
        self.device.restore(&state, RestoreMode::InPlace).unwrap();
    }
}

#[test]
fn the_host_s_bytes_differ_and_are_bounded() {
    let mut guest = Guest::new();
    let first = guest.ask(64);
    assert_eq!(first.len(), 64);
    assert_ne!(first, guest.ask(64));
    assert_eq!(guest.ask(1 << 20).len(), 4096);
}

#[test]
fn a_seed_makes_every_run_the_same() {
    let mut guest = Guest::new();
    guest.seed(7);
    let first = [guest.ask(10), guest.ask(33)];
    let later = guest.device.save();
    let third = guest.ask(100);
    guest.seed(7);
    assert_eq!([guest.ask(10), guest.ask(33)], first);
    guest.device.restore(&later, RestoreMode::Fresh).unwrap();
    assert_eq!(guest.ask(100), third);
    guest.seed(8);
    assert_ne!(guest.ask(10), first[0]);
}

#[test]
fn a_full_ring_takes_several_calls() {
    let mut guest = Guest::new();
    for slot in 0..64 {
        assert!(guest.driver.add(&guest.memory, &[(DATA + slot * 4096, 4096, true)]));
    }
    let signals = guest.device.process_queue(0, &mut guest.queues, &guest.memory).unwrap();
    assert_eq!((signals.queues, signals.again), (1, 1));
    guest.run();
    assert_eq!(std::iter::from_fn(|| guest.driver.take_used(&guest.memory)).count(), 64);
}

proptest! {
    #[test]
    fn any_ring_does_no_harm(
        table in prop::collection::vec((0..5_u64 << 20, any::<u32>(), 0_u16..8, 0_u16..18), 16),
        heads in prop::collection::vec(0_u16..20, 1..30),
    ) {
        let mut guest = Guest::new();
        for (index, &fields) in table.iter().enumerate() {
            guest.driver.write_descriptor(&guest.memory, u16::try_from(index).unwrap(), fields);
        }
        for head in heads {
            guest.driver.offer(&guest.memory, head);
            if guest.device.process_queue(0, &mut guest.queues, &guest.memory).is_err() {
                break;
            }
        }
    }
}
