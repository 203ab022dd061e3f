//! The device driven as a guest's driver would, above memory that is really freed.

use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmoon_core::units::Bytes as Size;

use super::{Balloon, BalloonHost, ReclaimMemory};
use crate::device::{Device, DeviceError, RestoreMode};
use crate::memory::GuestMemory;
use crate::ring::driver::{DriverQueue, RAM, memory};
use crate::waker::HostWaker;

const DATA: u64 = 0x10_0000;
const PAGES: u64 = RAM / 4096;

/// Remembers what was freed: first page and count.
#[derive(Clone, Debug, Default)]
struct Freed(Arc<Mutex<Vec<(u64, u64)>>>);

impl ReclaimMemory for Freed {
    fn reclaim(&mut self, start: GuestAddress, length: u64) -> io::Result<()> {
        assert!(length > 0 && length.is_multiple_of(4096) && start.0.is_multiple_of(4096));
        assert!(start.0 + length <= RAM);
        self.0.lock().unwrap().push((start.0 / 4096, length / 4096));
        Ok(())
    }
}

struct Guest {
    device: Balloon,
    host: BalloonHost,
    freed: Freed,
    memory: GuestMemory,
    drivers: [DriverQueue; 4],
    queues: Vec<Queue>,
}

impl Guest {
    fn new() -> Self {
        let freed = Freed::default();
        let (mut device, host) =
            Balloon::new(Size(RAM), Box::new(freed.clone()), HostWaker::new(|| {}));
        device.activate(device.features());
        let drivers = [(0, 128), (1, 128), (2, 16), (3, 64)]
            .map(|(index, size)| DriverQueue::new(index, size, true));
        let queues = drivers.iter().map(DriverQueue::queue).collect();
        Self { device, host, freed, memory: memory(), drivers, queues }
    }

    fn kick(&mut self, index: usize) -> Result<(), DeviceError> {
        while self.device.process_queue(index, &mut self.queues, &self.memory)?.again != 0 {}
        Ok(())
    }

    fn host(&mut self) {
        let _ = self.device.process_host(&mut self.queues, &self.memory).unwrap();
    }

    fn send_pages(&mut self, index: usize, pages: &[u32]) -> Result<(), DeviceError> {
        let bytes: Vec<u8> = pages.iter().flat_map(|page| page.to_le_bytes()).collect();
        self.memory.write_slice(&bytes, GuestAddress(DATA)).unwrap();
        let length = u32::try_from(bytes.len()).unwrap();
        assert!(self.drivers[index].add(&self.memory, &[(DATA, length, false)]));
        self.kick(index)
    }

    fn freed(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.freed.0.lock().unwrap())
    }

    fn config(&self) -> [u32; 2] {
        let mut bytes = [0; 8];
        self.device.read_config(0, &mut bytes);
        [0, 4].map(|at| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()))
    }
}

#[test]
fn inflating_frees_ranges_and_deflating_nothing() {
    let mut guest = Guest::new();
    guest.send_pages(0, &[7, 6, 5, 100, 9, 5]).unwrap();
    assert_eq!(guest.freed(), [(5, 3), (9, 1), (100, 1)]);
    guest.send_pages(1, &[7, 6]).unwrap();
    assert_eq!(guest.freed(), []);
    assert!(guest.drivers[0].take_used(&guest.memory).is_some());
    let beyond = u32::try_from(PAGES).unwrap();
    assert!(guest.send_pages(0, &[beyond]).is_err());
    assert!(guest.send_pages(0, &[u32::MAX]).is_err());
    assert_eq!(guest.freed(), []);
}

#[test]
fn targets_reach_the_guest_and_levels_the_host() {
    let mut guest = Guest::new();
    let mut level = guest.host.watch();
    assert_eq!(level.borrow_and_update().target, Size(RAM));
    guest.host.set_target(Size(RAM / 2 + 1));
    let signals = guest.device.process_host(&mut guest.queues, &guest.memory).unwrap();
    assert!(signals.config);
    let pages = u32::try_from(PAGES / 2 - 1).unwrap();
    assert_eq!(guest.config(), [pages, 0]);
    guest.device.write_config(4, &100_u32.to_le_bytes());
    assert_eq!(guest.config(), [pages, 100]);
    assert!(level.has_changed().unwrap());
    assert_eq!(level.borrow_and_update().actual, Size(RAM - 100 * 4096));
    // What the guest may not write, and what makes no sense.
    guest.device.write_config(0, &1_u32.to_le_bytes());
    assert_eq!(guest.config(), [pages, 100]);
    guest.device.write_config(4, &u32::MAX.to_le_bytes());
    assert_eq!(level.borrow_and_update().actual, Size(0));
    // Back to an earlier state.
    guest.device.write_config(4, &100_u32.to_le_bytes());
    let saved = guest.device.save();
    guest.host.set_target(Size(0));
    guest.host();
    guest.device.write_config(4, &500_u32.to_le_bytes());
    guest.device.restore(&saved, RestoreMode::InPlace).unwrap();
    guest.host();
    assert_eq!(guest.config(), [pages, 100]);
    let now = *level.borrow_and_update();
    assert_eq!((now.target, now.actual), (Size(RAM / 2 + 4096), Size(RAM - 100 * 4096)));
}

#[test]
fn statistics_are_asked_for_again_and_again() {
    let mut guest = Guest::new();
    let offer = |guest: &mut Guest, value: u64| {
        let mut bytes = Vec::new();
        for (tag, value) in [(4_u16, value), (99, 1), (5, value * 2)] {
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        guest.memory.write_slice(&bytes, GuestAddress(DATA)).unwrap();
        let length = u32::try_from(bytes.len()).unwrap();
        assert!(guest.drivers[2].add(&guest.memory, &[(DATA, length, false)]));
        guest.kick(2).unwrap();
    };
    offer(&mut guest, 1);
    let host = guest.host.clone();
    let mut context = Context::from_waker(Waker::noop());
    for round in 2..6 {
        let mut asking = pin!(host.statistics());
        assert!(asking.as_mut().poll(&mut context).is_pending());
        guest.host();
        assert!(guest.drivers[2].take_used(&guest.memory).is_some());
        // The next offer is kicked for: the device asked for it.
        let event: u16 =
            guest.memory.read_obj(GuestAddress(guest.queues[2].used_ring() + 4 + 8 * 16)).unwrap();
        assert_eq!(u64::from(event), round - 1);
        offer(&mut guest, round);
        let Poll::Ready(answer) = asking.as_mut().poll(&mut context) else { panic!("no answer") };
        let answer = answer.unwrap();
        assert_eq!((answer.free_memory, answer.total_memory), (Some(round), Some(round * 2)));
        assert_eq!(answer.swap_in, None);
    }
    let mut asking = pin!(host.statistics());
    assert!(asking.as_mut().poll(&mut context).is_pending());
    drop(guest);
    assert!(matches!(asking.as_mut().poll(&mut context), Poll::Ready(Err(_))));
    assert!(matches!(pin!(host.statistics()).poll(&mut context), Poll::Ready(Err(_))));
}

#[test]
fn reported_pages_are_freed() {
    let mut guest = Guest::new();
    let buffers = [(4096 * 20, 8192, true), (4096 * 64, 4096, true)];
    assert!(guest.drivers[3].add(&guest.memory, &buffers));
    guest.kick(3).unwrap();
    assert_eq!(guest.freed(), [(20, 2), (64, 1)]);
    assert!(guest.drivers[3].add(&guest.memory, &[(4096 * 20 + 1, 4096, true)]));
    assert!(matches!(guest.kick(3), Err(DeviceError::Request { queue: 3, .. })));
    // Without statistics, reporting moves to the third queue.
    let mut guest = Guest::new();
    guest.device.activate(1 << 5);
    assert!(guest.drivers[2].add(&guest.memory, &[(4096 * 20, 4096, true)]));
    guest.kick(2).unwrap();
    assert_eq!(guest.freed(), [(20, 1)]);
}

proptest! {
    #[test]
    fn any_ring_does_no_harm(
        table in prop::collection::vec(
            (0..RAM + 0x2000, prop_oneof![0_u32..9000, any::<u32>()], 0_u16..8, 0_u16..18), 16),
        heads in prop::collection::vec((0_usize..4, 0_u16..20), 1..20),
        noise in prop::collection::vec(any::<u8>(), 4096),
    ) {
        let mut guest = Guest::new();
        guest.memory.write_slice(&noise, GuestAddress(0x20_0000)).unwrap();
        for (queue, head) in heads {
            for (index, &fields) in table.iter().enumerate() {
                let index = u16::try_from(index).unwrap();
                guest.drivers[queue].write_descriptor(&guest.memory, index, fields);
            }
            guest.drivers[queue].offer(&guest.memory, head);
            if guest.kick(queue).is_err() {
                guest.device.reset();
                break;
            }
            guest.host();
        }
    }
}
