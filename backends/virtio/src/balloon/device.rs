//! The device.

use std::sync::Arc;

use virtio_queue::Queue;
use vm_memory::{GuestAddress, GuestMemoryBackend};
use vmoon_core::units::Bytes;

use super::host::{BalloonHost, Shared};
use super::pages::Pages;
use super::reclaim::ReclaimMemory;
use super::state::BalloonState;
use super::statistics;
use crate::device::{COMMON_FEATURES, Device, DeviceError, DeviceKind, RestoreMode, Signals};
use crate::memory::GuestMemory;
use crate::ring::{Chain, Ring};
use crate::state::{DeviceState, STATE_VERSION};
use crate::waker::HostWaker;

/// The size of a page of the balloon in bytes, whatever the guest's own pages are.
pub(super) const PAGE: u64 = 4096;

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const STATISTICS: usize = 2;
const REPORTING: usize = 3;
const QUEUE_SIZES: [u16; 4] = [128, 128, 16, 64];

/// `VIRTIO_BALLOON_F_STATS_VQ`.
const FEATURE_STATISTICS: u64 = 1 << 1;
/// `VIRTIO_BALLOON_F_DEFLATE_ON_OOM`.
const FEATURE_DEFLATE_ON_OOM: u64 = 1 << 2;
/// `VIRTIO_BALLOON_F_PAGE_REPORTING`.
const FEATURE_REPORTING: u64 = 1 << 5;

/// The most requests that are served before the machine's thread looks at other work.
const MAX_ROUND: usize = 32;
/// The most page numbers that one request may hold; Linux sends 256.
const MAX_PAGES: usize = 16_384;

/// The balloon: takes pages from the guest and gives them back to the host.
#[derive(Debug)]
pub struct Balloon {
    shared: Arc<Shared>,
    reclaim: Box<dyn ReclaimMemory>,
    memory: Bytes,
    target_pages: u32,
    actual_pages: u32,
    active: bool,
    features: u64,
    /// The chain that the guest waits to get back, to be asked for statistics with.
    held_statistics: Option<u16>,
    reclaimed: u64,
    chain: Chain,
    pages: Pages,
}

impl Balloon {
    /// The balloon of a machine with `memory` bytes of RAM, and the host's handle to it.
    pub fn new(
        memory: Bytes,
        reclaim: Box<dyn ReclaimMemory>,
        waker: HostWaker,
    ) -> (Self, BalloonHost) {
        let host = BalloonHost::new(memory, waker);
        let balloon = Self {
            shared: Arc::clone(&host.shared),
            reclaim,
            memory,
            target_pages: 0,
            actual_pages: 0,
            active: false,
            features: 0,
            held_statistics: None,
            reclaimed: 0,
            chain: Chain::default(),
            pages: Pages::default(),
        };
        (balloon, host)
    }

    /// Where reporting has its queue: queues of features that were not accepted are left out
    /// (virtio 1.3 section 5.5.2).
    const fn reporting_queue(&self) -> usize {
        if self.features & FEATURE_STATISTICS != 0 { REPORTING } else { STATISTICS }
    }

    fn left_with(&self, pages: u32) -> Bytes {
        Bytes(self.memory.get().saturating_sub(u64::from(pages) * PAGE))
    }

    fn publish(&self) {
        let (target, actual) =
            (self.left_with(self.target_pages), self.left_with(self.actual_pages));
        // A wish that waits is newer than the target that the device has.
        let waiting = self.shared.wishes().target_pages.is_some();
        self.shared.level.send_if_modified(|level| {
            let before = *level;
            level.actual = actual;
            if !waiting {
                level.target = target;
            }
            *level != before
        });
    }

    fn serve(
        &mut self,
        index: usize,
        ring: &mut Ring<'_>,
        memory: &GuestMemory,
    ) -> Result<bool, DeviceError> {
        for _ in 0..MAX_ROUND {
            while !ring.pop(&mut self.chain)? {
                if !ring.request_kick()? {
                    return Ok(false);
                }
            }
            match index {
                INFLATE => self.inflate(ring, memory)?,
                // The pages come back as zeroes when the guest touches them.
                DEFLATE => {}
                _ => self.report(ring, memory)?,
            }
            ring.push(self.chain.head(), 0)?;
        }
        Ok(true)
    }

    /// Frees the pages whose numbers the guest sent.
    fn inflate(&mut self, ring: &Ring<'_>, memory: &GuestMemory) -> Result<(), DeviceError> {
        let count = self.chain.readable_length() as usize / 4;
        if count > MAX_PAGES {
            return Err(ring.bad_request("too many pages in one request"));
        }
        let mut reader = self.chain.reader(memory);
        let mut number = [0; 4];
        for _ in 0..count {
            reader.read(&mut number);
            self.pages.add(u32::from_le_bytes(number));
        }
        for range in self.pages.take_ranges() {
            let (start, length) = (range.start * PAGE, (range.end - range.start) * PAGE);
            self.free(ring, memory, GuestAddress(start), length)?;
        }
        Ok(())
    }

    /// Frees the pages that the guest reports as unused (virtio 1.3 section 5.5.6.7); it may touch
    /// them again once the buffer is back, and finds zeroes.
    fn report(&mut self, ring: &Ring<'_>, memory: &GuestMemory) -> Result<(), DeviceError> {
        let buffers: Vec<_> = self.chain.writable_buffers().collect();
        for (address, length) in buffers {
            if !address.0.is_multiple_of(PAGE) || !u64::from(length).is_multiple_of(PAGE) {
                return Err(ring.bad_request("a reported range is not whole pages"));
            }
            self.free(ring, memory, address, length.into())?;
        }
        Ok(())
    }

    fn free(
        &mut self,
        ring: &Ring<'_>,
        memory: &GuestMemory,
        start: GuestAddress,
        length: u64,
    ) -> Result<(), DeviceError> {
        let fits = usize::try_from(length).is_ok_and(|length| memory.check_range(start, length));
        if !fits {
            return Err(ring.bad_request("a page of the balloon is not RAM"));
        }
        match self.reclaim.reclaim(start, length) {
            Ok(()) => self.reclaimed += length,
            // The guest's pages stay with the host; nothing else is wrong.
            Err(error) => tracing::warn!(%error, start = start.0, length, "pages were not freed"),
        }
        Ok(())
    }

    /// The guest answers with statistics, or offers its first buffer.
    fn take_statistics(
        &mut self,
        ring: &mut Ring<'_>,
        memory: &GuestMemory,
    ) -> Result<bool, DeviceError> {
        for _ in 0..MAX_ROUND {
            while !ring.pop(&mut self.chain)? {
                if !ring.request_kick()? {
                    return Ok(false);
                }
            }
            if let Some(held) = self.held_statistics.replace(self.chain.head()) {
                // A guest that offers a second buffer gets the first one back.
                ring.push(held, 0)?;
            }
            let answer = statistics::read(&mut self.chain.reader(memory));
            // The first buffer after the driver began answers nobody, but is as good.
            for waiting in self.shared.wishes().statistics.drain(..) {
                let _ = waiting.send(answer);
            }
        }
        Ok(true)
    }
}

impl Device for Balloon {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Balloon
    }

    fn name(&self) -> &'static str {
        "balloon"
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        COMMON_FEATURES | FEATURE_STATISTICS | FEATURE_DEFLATE_ON_OOM | FEATURE_REPORTING
    }

    fn activate(&mut self, features: u64) {
        self.features = features;
        self.active = true;
    }

    /// `num_pages`, then `actual` (virtio 1.3 section 5.5.4).
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; 8];
        config[..4].copy_from_slice(&self.target_pages.to_le_bytes());
        config[4..].copy_from_slice(&self.actual_pages.to_le_bytes());
        let start = usize::try_from(offset).unwrap_or(config.len()).min(config.len());
        for (to, from) in data.iter_mut().zip(&config[start..]) {
            *to = *from;
        }
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let (4, Ok(actual)) = (offset, data.try_into()) {
            self.actual_pages = u32::from_le_bytes(actual);
            self.publish();
        }
    }

    fn process_queue(
        &mut self,
        index: usize,
        queues: &mut [Queue],
        memory: &GuestMemory,
    ) -> Result<Signals, DeviceError> {
        if index > REPORTING {
            return Err(DeviceError::NoQueue(index));
        }
        let Some(mut ring) = Ring::ready(index, queues, memory) else {
            return Ok(Signals::NONE);
        };
        let more = if index == STATISTICS && self.features & FEATURE_STATISTICS != 0 {
            self.take_statistics(&mut ring, memory)?
        } else if index > DEFLATE && index != self.reporting_queue() {
            false
        } else {
            self.serve(index, &mut ring, memory)?
        };
        let again = if more { Signals::again(index) } else { Signals::NONE };
        Ok(ring.signals()? | again)
    }

    fn process_host(
        &mut self,
        queues: &mut [Queue],
        memory: &GuestMemory,
    ) -> Result<Signals, DeviceError> {
        let mut signals = Signals::NONE;
        let (target, wanted) = {
            let mut wishes = self.shared.wishes();
            (wishes.target_pages.take(), !wishes.statistics.is_empty())
        };
        if let Some(target) = target
            && target != self.target_pages
        {
            self.target_pages = target;
            signals |= Signals::config();
        }
        if wanted
            && let Some(mut ring) = Ring::ready(STATISTICS, queues, memory)
            && let Some(held) = self.held_statistics.take()
        {
            // Its buffer back is the question.
            ring.push(held, 0)?;
            signals |= ring.signals()?;
        }
        self.publish();
        Ok(signals)
    }

    fn reset(&mut self) {
        self.active = false;
        self.actual_pages = 0;
        self.held_statistics = None;
        self.publish();
    }

    fn describe(&self) -> String {
        if !self.active {
            return "no driver".to_owned();
        }
        let (target, actual) = (self.target_pages, self.actual_pages);
        format!("holds {actual} pages of {target}; {} bytes freed on the host", self.reclaimed)
    }

    fn save(&self) -> DeviceState {
        DeviceState::Balloon(BalloonState {
            version: STATE_VERSION,
            active: self.active,
            target_pages: self.target_pages,
            actual_pages: self.actual_pages,
            held_statistics: self.held_statistics,
            features: self.features,
        })
    }

    fn restore(&mut self, state: &DeviceState, _mode: RestoreMode) -> Result<(), DeviceError> {
        let DeviceState::Balloon(state) = state else {
            return Err(state.mismatch(DeviceKind::Balloon));
        };
        self.active = state.active;
        self.target_pages = state.target_pages;
        self.actual_pages = state.actual_pages;
        self.held_statistics = state.held_statistics;
        self.features = state.features;
        // What was asked since belongs to the life that is undone.
        self.shared.wishes().target_pages = None;
        self.publish();
        Ok(())
    }
}

impl Drop for Balloon {
    fn drop(&mut self) {
        // Nobody will answer any more.
        self.shared.close();
    }
}
