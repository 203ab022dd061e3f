//! The transport driven as a guest's driver would, with a device that does as it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmoon_virtio::device::{COMMON_FEATURES, Device, DeviceError, DeviceKind};
use vmoon_virtio::entropy::{EntropySource, EntropyState};
use vmoon_virtio::state::STATE_VERSION;
use vmoon_virtio::{DeviceState, GuestMemory, HostWaker, RestoreMode, Signals};

use super::MmioTransport;
use super::registers::*;

/// What the fake device saw, shared with the test.
#[derive(Debug, Default)]
struct Seen {
    activated: AtomicU32,
    resets: AtomicU32,
    kicks: AtomicU32,
    host: AtomicU32,
    wakes: AtomicU32,
    /// The next kick fails.
    fail: AtomicU32,
}

#[derive(Debug)]
struct Fake(Arc<Seen>);

impl Device for Fake {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Entropy
    }
    fn name(&self) -> &'static str {
        "fake"
    }
    fn queue_max_sizes(&self) -> &[u16] {
        &[8, 16]
    }
    fn features(&self) -> u64 {
        COMMON_FEATURES | 1
    }
    fn activate(&mut self, _features: u64) {
        self.0.activated.fetch_add(1, Ordering::Relaxed);
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        data.fill(u8::try_from(offset).unwrap_or(0));
    }
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}
    fn process_queue(
        &mut self,
        index: usize,
        _queues: &mut [Queue],
        _memory: &GuestMemory,
    ) -> Result<Signals, DeviceError> {
        if self.0.fail.load(Ordering::Relaxed) == 1 {
            return Err(DeviceError::Request { queue: index, reason: "as told" });
        }
        let kicks = self.0.kicks.fetch_add(1, Ordering::Relaxed);
        Ok(if kicks == 0 { Signals::again(index) } else { Signals::queue(index) })
    }
    fn process_host(
        &mut self,
        _queues: &mut [Queue],
        _memory: &GuestMemory,
    ) -> Result<Signals, DeviceError> {
        self.0.host.fetch_add(1, Ordering::Relaxed);
        Ok(Signals::config())
    }
    fn reset(&mut self) {
        self.0.resets.fetch_add(1, Ordering::Relaxed);
    }
    fn describe(&self) -> String {
        "fine".to_owned()
    }
    fn save(&self) -> DeviceState {
        DeviceState::Entropy(EntropyState { version: STATE_VERSION, source: EntropySource::Os })
    }
    fn restore(&mut self, _: &DeviceState, _: RestoreMode) -> Result<(), DeviceError> {
        Ok(())
    }
}

fn transport() -> (MmioTransport, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let waker = HostWaker::new({
        let seen = Arc::clone(&seen);
        move || {
            seen.wakes.fetch_add(1, Ordering::Relaxed);
        }
    });
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
    memory.write_obj(0_u16, GuestAddress(0)).unwrap();
    let transport = MmioTransport::new(Box::new(Fake(Arc::clone(&seen))), memory, waker).unwrap();
    (transport, seen)
}

fn read(transport: &MmioTransport, offset: u64) -> u32 {
    let mut data = [0; 4];
    transport.read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn write(transport: &mut MmioTransport, offset: u64, value: u32) {
    transport.write(offset, &value.to_le_bytes());
}

/// As far as `FEATURES_OK`.
fn negotiate(transport: &mut MmioTransport) {
    write(transport, STATUS, 1);
    write(transport, STATUS, 3);
    for select in [0, 1] {
        write(transport, DEVICE_FEATURES_SEL, select);
        let offered = read(transport, DEVICE_FEATURES);
        write(transport, DRIVER_FEATURES_SEL, select);
        write(transport, DRIVER_FEATURES, offered);
    }
    write(transport, STATUS, 11);
    assert_eq!(read(transport, STATUS), 11);
}

fn set_queue(transport: &mut MmioTransport, index: u32, size: u32, base: u32) {
    write(transport, QUEUE_SEL, index);
    write(transport, QUEUE_SIZE, size);
    write(transport, QUEUE_DESC_LOW, base);
    write(transport, QUEUE_DRIVER_LOW, base + 0x400);
    write(transport, QUEUE_DEVICE_LOW, base + 0x800);
    write(transport, QUEUE_READY, 1);
}

fn running() -> (MmioTransport, Arc<Seen>) {
    let (mut transport, seen) = transport();
    negotiate(&mut transport);
    set_queue(&mut transport, 0, 8, 0x1000);
    set_queue(&mut transport, 1, 4, 0x2000);
    write(&mut transport, STATUS, 15);
    assert_eq!(read(&transport, STATUS), 15);
    (transport, seen)
}

#[test]
fn shows_what_it_is() {
    let (transport, _) = transport();
    assert_eq!(read(&transport, MAGIC_VALUE), MAGIC);
    assert_eq!(read(&transport, VERSION), 2);
    assert_eq!(read(&transport, DEVICE_ID), 4);
    assert_eq!(read(&transport, QUEUE_SIZE_MAX), 8);
    assert_eq!(read(&transport, SHM_LEN_LOW), u32::MAX);
    let mut byte = [0; 1];
    transport.read(CONFIG + 7, &mut byte);
    assert_eq!(byte, [7]);
    transport.read(MAGIC_VALUE, &mut byte);
    assert_eq!(byte, [0]);
}

#[test]
fn works_from_driver_ok_until_reset() {
    let (mut transport, seen) = transport();
    assert!(!transport.kick(0));
    negotiate(&mut transport);
    set_queue(&mut transport, 0, 8, 0x1000);
    assert_eq!(read(&transport, QUEUE_READY), 1);
    assert!(!transport.kick(0));
    write(&mut transport, STATUS, 15);
    assert_eq!(seen.activated.load(Ordering::Relaxed), 1);
    // The first kick asks to be called again, which the waker brings about.
    assert!(!transport.kick(0));
    assert!(transport.host_wake());
    assert_eq!(seen.kicks.load(Ordering::Relaxed), 2);
    assert_eq!(seen.host.load(Ordering::Relaxed), 1);
    assert_eq!(read(&transport, INTERRUPT_STATUS), INTERRUPT_QUEUE | INTERRUPT_CONFIG);
    assert_eq!(read(&transport, CONFIG_GENERATION), 1);
    write(&mut transport, INTERRUPT_ACK, INTERRUPT_QUEUE);
    assert_eq!(transport.interrupt_status().read(), INTERRUPT_CONFIG);
    // Not ready, or not there.
    assert!(!transport.kick(1));
    assert!(!transport.kick(99));
    write(&mut transport, STATUS, 0);
    assert_eq!(seen.resets.load(Ordering::Relaxed), 1);
    assert_eq!((read(&transport, STATUS), read(&transport, INTERRUPT_STATUS)), (0, 0));
    assert!(!transport.kick(0));
    assert_eq!(seen.kicks.load(Ordering::Relaxed), 2);
}

#[test]
fn features_must_be_offered_and_modern() {
    for (low, high) in [(0, 0), (2, 1), (0, 3)] {
        let (mut transport, _) = transport();
        write(&mut transport, STATUS, 3);
        for (select, value) in [(0, low), (1, high)] {
            write(&mut transport, DRIVER_FEATURES_SEL, select);
            write(&mut transport, DRIVER_FEATURES, value);
        }
        write(&mut transport, STATUS, 11);
        assert_eq!(read(&transport, STATUS), 3, "{low:#x} {high:#x}");
        write(&mut transport, STATUS, 15);
        assert_eq!(read(&transport, STATUS), 3);
    }
}

#[test]
fn bad_queues_break_the_device_and_a_reset_mends_it() {
    for (size, base) in
        [(3, 0x1000), (0, 0x1000), (16, 0x1000), (1 << 16, 0x1000), (8, 0x1008), (8, 0xf800)]
    {
        let (mut transport, seen) = transport();
        negotiate(&mut transport);
        set_queue(&mut transport, 0, size, base);
        assert_ne!(read(&transport, STATUS) & status::NEEDS_RESET, 0, "{size} {base:#x}");
        assert!(
            transport.describe().1.starts_with("broken: queue 0"),
            "{:?}",
            transport.describe()
        );
        write(&mut transport, STATUS, 15);
        assert_eq!(read(&transport, STATUS) & status::DRIVER_OK, 0);
        assert_eq!(seen.activated.load(Ordering::Relaxed), 0);
        write(&mut transport, STATUS, 0);
        assert_eq!(transport.describe().1, "fine");
    }
}

#[test]
fn a_device_error_asks_for_a_reset() {
    let (mut transport, seen) = running();
    seen.fail.store(1, Ordering::Relaxed);
    assert!(transport.kick(1));
    assert_ne!(read(&transport, STATUS) & status::NEEDS_RESET, 0);
    assert_eq!(read(&transport, INTERRUPT_STATUS), INTERRUPT_CONFIG);
    assert_eq!(transport.describe(), ("fake".to_owned(), "broken: queue 1: as told".to_owned()));
    seen.fail.store(0, Ordering::Relaxed);
    assert!(!transport.kick(0));
    assert_eq!(seen.host.load(Ordering::Relaxed), 0);
}

#[test]
fn notify_by_register_reaches_the_queue_through_the_waker() {
    let (mut transport, seen) = running();
    transport.host_wake();
    let wakes = seen.wakes.load(Ordering::Relaxed);
    write(&mut transport, QUEUE_NOTIFY, 99);
    assert_eq!(seen.wakes.load(Ordering::Relaxed), wakes);
    write(&mut transport, QUEUE_NOTIFY, 1);
    assert_eq!(seen.wakes.load(Ordering::Relaxed), wakes + 1);
    transport.host_wake();
    assert_eq!(seen.kicks.load(Ordering::Relaxed), 1);
}

#[test]
fn a_restore_goes_back_and_replays_kicks_and_interrupts() {
    let (mut transport, seen) = running();
    transport.kick(1);
    transport.kick(1);
    let saved = transport.save();
    write(&mut transport, STATUS, 0);
    transport.restore(&saved, RestoreMode::InPlace).unwrap();
    assert_eq!(read(&transport, STATUS), 15);
    assert_eq!(read(&transport, INTERRUPT_STATUS), INTERRUPT_QUEUE);
    assert!(transport.queues[1].ready());
    assert_eq!(transport.queues[1].size(), 4);
    let kicks = seen.kicks.load(Ordering::Relaxed);
    assert!(transport.host_wake());
    assert_eq!(seen.kicks.load(Ordering::Relaxed), kicks + 2);
}

proptest! {
    /// Whatever the guest writes wherever, nothing panics and a reset mends it.
    #[test]
    fn survives_any_accesses(
        accesses in prop::collection::vec(
            (0_u64..0x200, any::<u32>(), 1_usize..9, any::<bool>()), 0..200),
    ) {
        let (mut transport, _) = running();
        for (offset, value, width, small) in accesses {
            let value = if small { value % 32 } else { value };
            let bytes = u64::from(value).to_le_bytes();
            transport.write(offset, &bytes[..width]);
            transport.write(offset & !3, &bytes[..4]);
            let mut data = [0; 8];
            transport.read(offset, &mut data[..width]);
            transport.kick(value as usize);
            transport.host_wake();
        }
        write(&mut transport, STATUS, 0);
        negotiate(&mut transport);
    }
}
