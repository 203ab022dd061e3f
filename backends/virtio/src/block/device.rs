//! The device: requests from the guest.

use std::io;

use virtio_queue::Queue;
use vmoon_core::error::Result;
use vmoon_core::faults::{BlockOperation, BlockRule};
use vmoon_core::spec::Disk as DiskSpec;

use super::contents::BlockHost;
use super::discard::{self, Kind, Range, Refusal};
use super::disk::Disk;
use super::faults::{BlockFaults, Fate, Request};
use super::image::SECTOR;
use super::state::BlockState;
use crate::device::{COMMON_FEATURES, Device, DeviceError, DeviceKind, RestoreMode, Signals};
use crate::faults::FaultRules;
use crate::memory::GuestMemory;
use crate::ring::{Chain, Cursor, Ring};
use crate::state::{DeviceState, STATE_VERSION};
use crate::waker::HostWaker;

const REQUESTS: usize = 0;
const QUEUE_SIZES: [u16; 1] = [128];

/// `VIRTIO_BLK_F_SEG_MAX`.
const FEATURE_SEG_MAX: u64 = 1 << 2;
/// `VIRTIO_BLK_F_RO`.
const FEATURE_READ_ONLY: u64 = 1 << 5;
/// `VIRTIO_BLK_F_BLK_SIZE`.
const FEATURE_BLOCK_SIZE: u64 = 1 << 6;
/// `VIRTIO_BLK_F_FLUSH`.
const FEATURE_FLUSH: u64 = 1 << 9;

const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;
const TYPE_DISCARD: u32 = 11;
const TYPE_WRITE_ZEROES: u32 = 13;

/// The length of a request's header and of its status, in bytes.
const HEADER: u32 = 16;
const STATUS: u32 = 1;
/// The length of the name that `GET_ID` asks for.
const ID_LENGTH: usize = 20;
/// Buffers of data in a request: the queue's size less the header and the status.
const MAX_SEGMENTS: u32 = 126;
/// The most data that one request may carry; Linux asks for little more than 1 MiB.
const MAX_DATA: u32 = 16 << 20;
/// How much is copied at a time.
const CHUNK: usize = 64 << 10;
/// After how many requests or bytes the machine's thread looks at other work.
const MAX_ROUND: usize = 64;
const MAX_BYTES: u64 = 4 << 20;

/// How a request ended (virtio 1.3 section 5.2.6).
#[derive(Clone, Copy)]
#[repr(u8)]
enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// A block device.
#[derive(Debug)]
pub struct BlockDevice {
    name: String,
    disk: Disk,
    chain: Chain,
    /// Whether each write is to last at once: the driver knows no flush.
    write_through: bool,
    /// Reused between requests.
    buffer: Vec<u8>,
    read: u64,
    written: u64,
    faults: BlockFaults,
}

impl BlockDevice {
    /// Opens a disk. `name` names the device for people and, cut to 20 bytes, for the guest;
    /// `waker` calls the device's owner.
    ///
    /// # Errors
    /// `file.*` where the image cannot be opened, `vm.spec` where it is none.
    pub fn open(spec: &DiskSpec, name: &str, waker: HostWaker) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            disk: Disk::open(spec)?,
            chain: Chain::default(),
            write_through: false,
            buffer: vec![0; CHUNK],
            read: 0,
            written: 0,
            faults: BlockFaults::new(waker),
        })
    }

    /// The rules by which it fails on purpose.
    pub fn faults(&self) -> FaultRules<BlockRule> {
        self.faults.rules.clone()
    }

    /// The host's end.
    pub fn host(&self) -> BlockHost {
        BlockHost { image: self.disk.image().clone() }
    }

    /// Serves the request in `chain`; how much of its writable part was written.
    fn serve(
        &mut self,
        chain: &Chain,
        ring: &Ring<'_>,
        memory: &GuestMemory,
        fate: Fate,
    ) -> Result<u32, DeviceError> {
        let mut header = [0; HEADER as usize];
        let mut reader = chain.reader(memory);
        if reader.read(&mut header) < header.len() {
            return Err(ring.bad_request("a request is shorter than its header"));
        }
        let Some(room) = chain.writable_length().checked_sub(STATUS) else {
            return Err(ring.bad_request("a request has no room for its status"));
        };
        let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let sector = u64::from_le_bytes(std::array::from_fn(|at| header[8 + at]));
        let outcome = match kind {
            _ if fate == Fate::Fail => Ok(Status::IoError),
            TYPE_IN => self.transfer(sector, room, |device, offset| {
                let mut writer = chain.writer(memory).take(room);
                device.copy_in(offset, &mut writer)
            }),
            TYPE_OUT if self.disk.is_readonly() => Ok(Status::IoError),
            TYPE_OUT => self.transfer(sector, reader.remaining(), |device, offset| {
                device.copy_out(offset, &mut reader)
            }),
            TYPE_DISCARD => self.clear(discard::Kind::Discard, &mut reader),
            TYPE_WRITE_ZEROES => self.clear(discard::Kind::WriteZeroes, &mut reader),
            TYPE_FLUSH => self.disk.flush().map(|()| Status::Ok),
            TYPE_GET_ID => {
                let mut id = [0; ID_LENGTH];
                for (to, from) in id.iter_mut().zip(self.name.as_bytes()) {
                    *to = *from;
                }
                chain.writer(memory).take(room).write(&id);
                Ok(Status::Ok)
            }
            _ => Ok(Status::Unsupported),
        };
        let status = outcome.unwrap_or_else(|error| {
            self.disk.failures_mut().note(&error);
            tracing::warn!(disk = %self.disk.image().path().display(), %error, "disk failed");
            Status::IoError
        });
        let mut last = chain.writer(memory);
        last.skip(room);
        last.write(&[status as u8]);
        Ok(chain.writable_length())
    }

    /// What the faults make of a request. One that is malformed is served, and refused there.
    fn fate(&mut self, chain: &Chain, memory: &GuestMemory) -> Fate {
        let mut header = [0; HEADER as usize];
        let mut reader = chain.reader(memory);
        if reader.read(&mut header) < header.len() {
            return Fate::Serve;
        }
        let kind = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let sector = u64::from_le_bytes(std::array::from_fn(|at| header[8 + at]));
        let room = chain.writable_length().saturating_sub(STATUS);
        let request = |operation, length: u32| Request { operation, sector, length: length.into() };
        self.faults.judge(match kind {
            TYPE_IN => request(BlockOperation::Read, room),
            TYPE_OUT => request(BlockOperation::Write, reader.remaining()),
            TYPE_FLUSH => request(BlockOperation::Flush, 0),
            TYPE_DISCARD | TYPE_WRITE_ZEROES => {
                let mut segment = [0; discard::SEGMENT];
                reader.read(&mut segment);
                let sector = u64::from_le_bytes(std::array::from_fn(|at| segment[at]));
                let count = u32::from_le_bytes(std::array::from_fn(|at| segment[8 + at]));
                let length = u64::from(count) * SECTOR;
                Request { operation: BlockOperation::Write, sector, length }
            }
            _ => return Fate::Serve,
        })
    }

    /// Checks where a transfer lies, and does it.
    fn transfer(
        &mut self,
        sector: u64,
        length: u32,
        act: impl FnOnce(&mut Self, u64) -> io::Result<()>,
    ) -> io::Result<Status> {
        let sectors = u64::from(length).div_ceil(SECTOR);
        let inside = sector.checked_add(sectors).is_some_and(|end| end <= self.disk.sectors());
        if !inside || !u64::from(length).is_multiple_of(SECTOR) || length > MAX_DATA {
            return Ok(Status::IoError);
        }
        act(self, sector * SECTOR)?;
        Ok(Status::Ok)
    }

    /// Discards sectors, or writes zeroes to them.
    fn clear(&mut self, kind: Kind, from: &mut Cursor<'_>) -> io::Result<Status> {
        let mut segment = [0; discard::SEGMENT];
        if self.disk.is_readonly()
            || from.remaining() as usize != segment.len()
            || from.read(&mut segment) < segment.len()
        {
            return Ok(Status::IoError);
        }
        let Range { sector, length } = match discard::parse(kind, &segment) {
            Ok(range) => range,
            Err(Refusal::Unsupported) => return Ok(Status::Unsupported),
            Err(Refusal::TooLarge) => return Ok(Status::IoError),
        };
        let end = sector.checked_add(length / SECTOR);
        if end.is_none_or(|end| end > self.disk.sectors()) {
            return Ok(Status::IoError);
        }
        match kind {
            Kind::Discard => self.disk.discard(sector * SECTOR, length)?,
            Kind::WriteZeroes => self.disk.write_zeroes(sector * SECTOR, length)?,
        }
        if self.write_through {
            self.disk.flush()?;
        }
        Ok(Status::Ok)
    }

    /// From the disk to the guest.
    fn copy_in(&mut self, mut offset: u64, to: &mut Cursor<'_>) -> io::Result<()> {
        while to.remaining() > 0 {
            let count = CHUNK.min(to.remaining() as usize);
            self.disk.read(offset, &mut self.buffer[..count])?;
            to.write(&self.buffer[..count]);
            offset += count as u64;
            self.read += count as u64;
        }
        Ok(())
    }

    /// From the guest to the disk.
    fn copy_out(&mut self, mut offset: u64, from: &mut Cursor<'_>) -> io::Result<()> {
        while from.remaining() > 0 {
            let count = from.read(&mut self.buffer);
            self.disk.write(offset, &self.buffer[..count])?;
            offset += count as u64;
            self.written += count as u64;
        }
        if self.write_through { self.disk.flush() } else { Ok(()) }
    }
}

impl Device for BlockDevice {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Block
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        let writes = if self.disk.is_readonly() { FEATURE_READ_ONLY } else { discard::FEATURES };
        COMMON_FEATURES | FEATURE_SEG_MAX | FEATURE_BLOCK_SIZE | FEATURE_FLUSH | writes
    }

    fn activate(&mut self, features: u64) {
        // Without flushes the driver counts on writes that last (virtio 1.3 section 5.2.5.2).
        self.write_through = features & FEATURE_FLUSH == 0;
    }

    /// `capacity`, `seg_max`, `blk_size` and the limits of discards (virtio 1.3 section 5.2.4).
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; 60];
        discard::configure(&mut config);
        config[..8].copy_from_slice(&self.disk.sectors().to_le_bytes());
        config[12..16].copy_from_slice(&MAX_SEGMENTS.to_le_bytes());
        config[20..24].copy_from_slice(&512_u32.to_le_bytes());
        crate::device::read_config_bytes(&config, offset, data);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn process_queue(
        &mut self,
        index: usize,
        queues: &mut [Queue],
        memory: &GuestMemory,
    ) -> Result<Signals, DeviceError> {
        if index != REQUESTS {
            return Err(DeviceError::NoQueue(index));
        }
        let Some(mut ring) = Ring::ready(REQUESTS, queues, memory) else {
            return Ok(Signals::NONE);
        };
        let mut chain = std::mem::take(&mut self.chain);
        let start = self.read + self.written;
        let mut requests = 0;
        let more = loop {
            if requests == MAX_ROUND || self.read + self.written - start >= MAX_BYTES {
                break true;
            }
            if !ring.pop(&mut chain)? {
                if ring.request_kick()? {
                    continue;
                }
                break false;
            }
            let fate = if self.faults.any() { self.fate(&chain, memory) } else { Fate::Serve };
            if fate == Fate::Wait {
                // The alarm of the delay wakes the device; until then nothing is taken.
                ring.undo_pop();
                break false;
            }
            requests += 1;
            let written = self.serve(&chain, &ring, memory, fate)?;
            ring.push(chain.head(), written)?;
        };
        self.chain = chain;
        let again = if more { Signals::again(REQUESTS) } else { Signals::NONE };
        Ok(ring.signals()? | again)
    }

    /// A delay is over, or its rule gone.
    fn process_host(
        &mut self,
        queues: &mut [Queue],
        memory: &GuestMemory,
    ) -> Result<Signals, DeviceError> {
        if self.faults.is_waiting() {
            return self.process_queue(REQUESTS, queues, memory);
        }
        Ok(Signals::NONE)
    }

    fn reset(&mut self) {
        self.faults.forget_delay();
        self.write_through = false;
    }

    fn describe(&self) -> String {
        let overlay = match self.disk.overlay() {
            Some(overlay) => format!(", {} clusters of 4 KiB in its overlay", overlay.len()),
            None if self.disk.is_readonly() => ", read-only".to_owned(),
            None => String::new(),
        };
        format!(
            "{}: {} sectors{overlay}, {} bytes read, {} written{}",
            self.disk.image().path().display(),
            self.disk.sectors(),
            self.read,
            self.written,
            self.disk.failures()
        )
    }

    fn save(&self) -> DeviceState {
        DeviceState::Block(BlockState {
            version: STATE_VERSION,
            sectors: self.disk.sectors(),
            write_through: self.write_through,
            overlay: self.disk.overlay().cloned(),
            faults: self.faults.rules.active(),
        })
    }

    fn restore(&mut self, state: &DeviceState, _mode: RestoreMode) -> Result<(), DeviceError> {
        let DeviceState::Block(state) = state else {
            return Err(state.mismatch(DeviceKind::Block));
        };
        if state.sectors != self.disk.sectors() {
            return Err(DeviceError::StateDoesNotFit("the disk has another size"));
        }
        if state.overlay.is_some() != self.disk.overlay().is_some() {
            return Err(DeviceError::StateDoesNotFit("the disk has another mode"));
        }
        self.write_through = state.write_through;
        self.faults.forget_delay();
        self.faults.rules.restore(&state.faults);
        self.disk.set_overlay(state.overlay.clone());
        Ok(())
    }
}
