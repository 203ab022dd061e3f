//! The device driven as a guest's driver would.

use std::sync::{Arc, Mutex};

use virtio_queue::Queue;
use vm_memory::{Bytes, GuestAddress};

use super::{ConsoleDevice, ConsoleHost};
use crate::device::{Device, DeviceError};
use crate::memory::GuestMemory;
use crate::ring::driver::{DriverQueue, memory};
use crate::waker::HostWaker;

const DATA: u64 = 0x10_0000;

struct Guest {
    device: ConsoleDevice,
    host: ConsoleHost,
    printed: Arc<Mutex<Vec<u8>>>,
    memory: GuestMemory,
    drivers: [DriverQueue; 2],
    queues: Vec<Queue>,
}

impl Guest {
    fn new() -> Self {
        let printed = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&printed);
        let (device, host) = ConsoleDevice::new(
            Box::new(move |bytes| sink.lock().unwrap().extend_from_slice(bytes)),
            HostWaker::new(|| {}),
        );
        let drivers = [0, 1].map(|index| DriverQueue::new(index, 64, true));
        let queues = drivers.iter().map(DriverQueue::queue).collect();
        Self { device, host, printed, memory: memory(), drivers, queues }
    }

    fn kick(&mut self, index: usize) -> Result<(), DeviceError> {
        while self.device.process_queue(index, &mut self.queues, &self.memory)?.again != 0 {}
        Ok(())
    }
}

#[test]
fn prints_what_the_guest_sends() {
    let mut guest = Guest::new();
    let text: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    guest.memory.write_slice(&text, GuestAddress(DATA)).unwrap();
    for buffers in [&[(DATA, 7, false), (DATA + 7, 4993, false)][..], &[(DATA + 5000, 5000, false)]]
    {
        assert!(guest.drivers[1].add(&guest.memory, buffers));
    }
    guest.kick(1).unwrap();
    assert_eq!(*guest.printed.lock().unwrap(), text);
    assert!(guest.drivers[1].add(&guest.memory, &[(DATA, 2 << 20, false)]));
    assert!(matches!(guest.kick(1), Err(DeviceError::Request { queue: 1, .. })));
    assert!(matches!(guest.kick(2), Err(DeviceError::NoQueue(2))));
}

#[test]
fn input_waits_for_buffers_and_is_bounded() {
    let mut guest = Guest::new();
    assert_eq!(guest.host.type_input(b"hello"), 5);
    let _ = guest.device.process_host(&mut guest.queues, &guest.memory).unwrap();
    for slot in 0..2 {
        assert!(guest.drivers[0].add(&guest.memory, &[(DATA + slot * 16, 3, true)]));
    }
    guest.kick(0).unwrap();
    let used: Vec<_> = std::iter::from_fn(|| guest.drivers[0].take_used(&guest.memory)).collect();
    assert_eq!(used.iter().map(|&(_, written)| written).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(guest.memory.read_obj::<[u8; 3]>(GuestAddress(DATA)).unwrap(), *b"hel");
    let much = vec![b'x'; 100 << 10];
    assert_eq!(guest.host.type_input(&much), 64 << 10);
    assert_eq!(guest.host.type_input(&much), 0);
}
