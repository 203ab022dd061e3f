//! Requests, one at a time.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use proptest::prelude::*;
use tempfile::NamedTempFile;
use virtio_queue::Queue;
use vm_memory::{Bytes, GuestAddress};
use vmoon_core::error::Code;
use vmoon_core::spec::{Disk as DiskSpec, DiskMode};

use crate::block::{BlockDevice, BlockState};
use crate::device::{Device, DeviceError, RestoreMode};
use crate::memory::GuestMemory;
use crate::ring::driver::{DriverQueue, memory};
use crate::state::DeviceState;
use crate::waker::HostWaker;

const HEADER: u64 = 0x10_0000;
const DATA: u64 = 0x10_1000;
const STATUS: u64 = 0x10_0100;
/// Sectors of the image: it ends within a cluster.
pub(super) const SECTORS: u64 = 67;

pub(super) struct Guest {
    pub(super) device: BlockDevice,
    memory: GuestMemory,
    driver: DriverQueue,
    queues: Vec<Queue>,
}

pub(super) fn image() -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    for sector in 0..SECTORS {
        file.write_all(&[u8::try_from(sector).unwrap(); 512]).unwrap();
    }
    file
}

pub(super) fn open(path: &Path, readonly: bool, mode: DiskMode) -> vmoon_core::Result<BlockDevice> {
    let spec = DiskSpec { path: path.to_owned(), readonly, mode };
    BlockDevice::open(&spec, "vda", HostWaker::new(|| ()))
}

impl Guest {
    pub(super) fn new(device: BlockDevice) -> Self {
        let driver = DriverQueue::new(0, 128, true);
        let queues = vec![driver.queue()];
        Self { device, memory: memory(), driver, queues }
    }

    fn run(&mut self) -> Result<(), DeviceError> {
        while self.device.process_queue(0, &mut self.queues, &self.memory)?.again != 0 {}
        Ok(())
    }

    /// A request whose data lies in one buffer; its status and how much was written.
    fn request(&mut self, kind: u32, sector: u64, out: &[u8], room: u32) -> (u8, u32) {
        let header = [kind.to_le_bytes(), [0; 4]].concat();
        self.memory.write_slice(&header, GuestAddress(HEADER)).unwrap();
        self.memory.write_obj(sector, GuestAddress(HEADER + 8)).unwrap();
        self.memory.write_slice(out, GuestAddress(DATA)).unwrap();
        self.memory.write_obj(0xff_u8, GuestAddress(STATUS)).unwrap();
        let mut buffers = vec![(HEADER, 16, false)];
        if !out.is_empty() {
            buffers.push((DATA, u32::try_from(out.len()).unwrap(), false));
        }
        if room > 0 {
            buffers.push((DATA, room, true));
        }
        buffers.push((STATUS, 1, true));
        assert!(self.driver.add(&self.memory, &buffers));
        self.run().unwrap();
        let (_, written) = self.driver.take_used(&self.memory).unwrap();
        (self.memory.read_obj(GuestAddress(STATUS)).unwrap(), written)
    }

    pub(super) fn read(&mut self, sector: u64, count: u32) -> Result<Vec<u8>, u8> {
        let (status, written) = self.request(0, sector, &[], count * 512);
        if status != 0 {
            return Err(status);
        }
        assert_eq!(written, count * 512 + 1);
        let mut bytes = vec![0; count as usize * 512];
        self.memory.read_slice(&mut bytes, GuestAddress(DATA)).unwrap();
        Ok(bytes)
    }

    /// Discards sectors, or writes zeroes to them.
    pub(super) fn clear(&mut self, discard: bool, sector: u64, count: usize) -> u8 {
        let count = u32::try_from(count).unwrap();
        let segment = [&sector.to_le_bytes()[..], &count.to_le_bytes(), &[0; 4]].concat();
        self.request(if discard { 11 } else { 13 }, 0, &segment, 0).0
    }

    pub(super) fn write(&mut self, sector: u64, bytes: &[u8]) -> u8 {
        self.request(1, sector, bytes, 0).0
    }
}

#[test]
fn reads_and_refuses_what_is_outside() {
    let file = image();
    let mut guest = Guest::new(open(file.path(), true, DiskMode::Overlay).unwrap());
    let mut config = [0; 24];
    guest.device.read_config(0, &mut config);
    assert_eq!(config[..8], SECTORS.to_le_bytes());
    assert_eq!(guest.read(3, 2).unwrap(), [[3; 512], [4; 512]].concat());
    assert_eq!(guest.read(SECTORS - 1, 1).unwrap(), [66; 512]);
    assert_eq!(guest.read(SECTORS - 1, 2), Err(1));
    assert_eq!(guest.read(u64::MAX, 2), Err(1));
    assert_eq!(guest.request(0, 0, &[], 100).0, 1);
    // Read-only.
    assert_ne!(guest.device.features() & (1 << 5), 0);
    assert_eq!(guest.write(0, &[1; 512]), 1);
    // Other requests.
    assert_eq!(guest.request(4, 0, &[], 0).0, 0);
    assert_eq!(guest.request(77, 0, &[], 0).0, 2);
    assert_eq!(guest.request(8, 0, &[], 20).0, 0);
    assert_eq!(guest.memory.read_obj::<[u8; 4]>(GuestAddress(DATA)).unwrap(), *b"vda\0");
}

#[test]
fn direct_writes_reach_the_file_and_overlays_do_not() {
    for (mode, changed) in [(DiskMode::Direct, true), (DiskMode::Overlay, false)] {
        let file = image();
        let mut guest = Guest::new(open(file.path(), false, mode).unwrap());
        assert_eq!(guest.write(SECTORS - 1, &[0xaa; 512]), 0);
        assert_eq!(guest.request(4, 0, &[], 0).0, 0);
        assert_eq!(guest.read(SECTORS - 1, 1).unwrap(), [0xaa; 512]);
        assert_eq!(guest.read(SECTORS - 2, 1).unwrap(), [65; 512]);
        let on_disk = std::fs::read(file.path()).unwrap();
        assert_eq!(on_disk.len() as u64, SECTORS * 512);
        assert_eq!(on_disk[on_disk.len() - 1] == 0xaa, changed);
    }
}

#[test]
fn discards_and_zeroes_free_the_room_of_a_file_and_keep_to_their_range() {
    let file = image();
    file.as_file().set_len(4 << 20).unwrap();
    let mut guest = Guest::new(open(file.path(), false, DiskMode::Direct).unwrap());
    for (discard, sector) in [(true, 8), (false, 24)] {
        assert_eq!(guest.clear(discard, sector, 8), 0);
    }
    let kept = guest.read(7, 1).unwrap();
    assert_eq!(kept, [7; 512]);
    assert_eq!(guest.read(24, 8).unwrap(), [0; 8 * 512]);
    assert_eq!(guest.read(32, 1).unwrap(), [32; 512]);
    // Outside, too large, and read-only.
    assert_eq!(guest.clear(true, 8190, 3), 1);
    assert_eq!(guest.clear(true, u64::MAX, 1), 1);
    assert_eq!(guest.clear(false, 0, (1 << 17) + 1), 1);
    let mut guest = Guest::new(open(file.path(), true, DiskMode::Overlay).unwrap());
    assert_eq!(guest.device.features() & (1 << 13 | 1 << 14), 0);
    assert_eq!(guest.clear(true, 8, 8), 1);
}

#[test]
fn a_file_that_shrinks_is_an_error_of_the_guest_s_request() {
    let file = image();
    let mut guest = Guest::new(open(file.path(), false, DiskMode::Overlay).unwrap());
    file.as_file().set_len(512).unwrap();
    assert_eq!(guest.read(0, 1).unwrap(), [0; 512]);
    assert_eq!(guest.read(1, 1), Err(1));
    assert_eq!(guest.write(9, &[1; 512]), 1);
    assert!(guest.device.describe().contains("2 requests failed, the last one: "));
}

#[test]
fn files_that_are_no_disks() {
    let directory = tempfile::tempdir().unwrap();
    let code = |path: &Path| open(path, false, DiskMode::Direct).unwrap_err().code();
    assert_eq!(code(&directory.path().join("none")), Code::FileNotFound);
    assert_eq!(code(directory.path()), Code::FileIo);
    let odd = directory.path().join("odd");
    std::fs::write(&odd, b"").unwrap();
    assert_eq!(code(&odd), Code::VmSpec);
    std::fs::write(&odd, [0; 513]).unwrap();
    let error = open(&odd, false, DiskMode::Overlay).unwrap_err();
    assert_eq!(error.code(), Code::VmSpec);
    assert!(error.message().contains("513"), "{error}");
    assert_eq!(code(Path::new("/dev/null")), Code::VmSpec);
}

#[test]
fn bad_requests_break_the_device() {
    let file = image();
    for buffers in [&[(HEADER, 15, false), (STATUS, 1, true)][..], &[(HEADER, 16, false)]] {
        let mut guest = Guest::new(open(file.path(), false, DiskMode::Overlay).unwrap());
        assert!(guest.driver.add(&guest.memory, buffers));
        assert!(matches!(guest.run(), Err(DeviceError::Request { queue: 0, .. })));
    }
}

#[test]
fn states_fit_their_disk_only() {
    let file = image();
    let mut overlay = open(file.path(), false, DiskMode::Overlay).unwrap();
    let mut direct = open(file.path(), false, DiskMode::Direct).unwrap();
    assert!(overlay.restore(&direct.save(), RestoreMode::InPlace).is_err());
    assert!(direct.restore(&overlay.save(), RestoreMode::InPlace).is_err());
    file.as_file().set_len(512).unwrap();
    let mut smaller = open(file.path(), false, DiskMode::Overlay).unwrap();
    assert!(smaller.restore(&overlay.save(), RestoreMode::Fresh).is_err());
}

#[test]
fn an_image_has_one_writer_or_readers() {
    let file = image();
    let device = |mode| open(file.path(), false, mode).unwrap();
    let held = |device: &BlockDevice| device.host().hold().map_err(|error| error.code());
    let (writer, other) = (device(DiskMode::Direct), device(DiskMode::Direct));
    let (reader, second) = (device(DiskMode::Overlay), device(DiskMode::Overlay));
    assert_eq!(held(&writer), Ok(()));
    assert_eq!([held(&other), held(&reader)], [Err(Code::FileIo); 2]);
    drop(writer);
    assert_eq!([held(&reader), held(&second)], [Ok(()); 2]);
    assert_eq!(held(&other), Err(Code::FileIo));
    drop(second);
    let contents = reader.host().contents(&state(&reader)).unwrap();
    drop(reader);
    assert_eq!(held(&other), Err(Code::FileIo), "what is read is held");
    drop(contents);
    assert_eq!(held(&other), Ok(()));
}

fn state(device: &BlockDevice) -> BlockState {
    match device.save() {
        DeviceState::Block(state) => state,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the guest asks for, the disk beneath stays as long as it is.
    #[test]
    fn any_requests_do_no_harm(
        requests in prop::collection::vec(
            (0_u32..10, prop_oneof![0..SECTORS + 5, any::<u64>()], 0_usize..3000, 0_u32..3000), 1..20),
    ) {
        let file = image();
        let mut guest = Guest::new(open(file.path(), false, DiskMode::Direct).unwrap());
        let mut statuses = HashMap::new();
        for (kind, sector, out, room) in requests {
            let (status, _) = guest.request(kind, sector, &vec![1; out], room);
            *statuses.entry(status).or_insert(0) += 1;
        }
        prop_assert!(statuses.keys().all(|&status| status <= 2));
        prop_assert_eq!(file.as_file().metadata().unwrap().len(), SECTORS * 512);
    }
}

#[test]
fn requests_fail_and_wait_by_rule_and_a_restore_undoes_it() {
    use std::time::Duration;
    use vmoon_core::faults::{BlockEffect, BlockOperation, BlockRule, FaultId};

    let file = image();
    let mut guest = Guest::new(open(file.path(), false, DiskMode::Overlay).unwrap());
    let clean = guest.device.save();
    let rule = |effect| BlockRule {
        operation: Some(BlockOperation::Write),
        sectors: Some((8, 15)),
        after: 0,
        times: None,
        effect,
    };
    let rules = guest.device.faults();
    rules.insert(FaultId::new(), rule(BlockEffect::Error));
    assert_eq!(guest.write(15, &[1; 512]), 1);
    assert_eq!(guest.read(15, 1).unwrap(), [15; 512], "nothing was written");
    assert_eq!(guest.write(16, &[1; 512]), 0, "another sector");
    let broken = guest.device.save();

    guest.device.restore(&clean, RestoreMode::InPlace).unwrap();
    assert_eq!(guest.write(15, &[1; 512]), 0);
    guest.device.restore(&broken, RestoreMode::InPlace).unwrap();
    assert_eq!(guest.write(15, &[1; 512]), 1);
    assert_eq!(rules.active()[0].hits, 2, "one of them before the snapshot");

    // A request that waits stays in the queue, with all behind it.
    guest.device.restore(&clean, RestoreMode::InPlace).unwrap();
    let id = FaultId::new();
    rules.insert(id, rule(BlockEffect::Delay(Duration::from_hours(1))));
    let header = [1_u32.to_le_bytes(), [0; 4]].concat();
    guest.memory.write_slice(&header, GuestAddress(HEADER)).unwrap();
    guest.memory.write_obj(8_u64, GuestAddress(HEADER + 8)).unwrap();
    let buffers = [(HEADER, 16, false), (DATA, 512, false), (STATUS, 1, true)];
    assert!(guest.driver.add(&guest.memory, &buffers));
    guest.run().unwrap();
    assert!(guest.driver.take_used(&guest.memory).is_none());
    let _ = guest.device.process_host(&mut guest.queues, &guest.memory).unwrap();
    assert!(guest.driver.take_used(&guest.memory).is_none(), "not yet");
    rules.remove(id);
    let _ = guest.device.process_host(&mut guest.queues, &guest.memory).unwrap();
    assert!(guest.driver.take_used(&guest.memory).is_some());
}
