//! A queue that is in use: chains come out, used buffers go back.

use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::Chain;
use super::chain::BadChain;
use crate::device::{DeviceError, Signals};
use crate::memory::GuestMemory;

/// `VIRTQ_AVAIL_F_NO_INTERRUPT` (virtio 1.3 section 2.7.6).
const NO_INTERRUPT: u16 = 1;

/// A queue that the driver has made ready, with the memory that it lies in.
#[derive(Debug)]
pub struct Ring<'a> {
    index: usize,
    queue: &'a mut Queue,
    memory: &'a GuestMemory,
    /// Whether a buffer was used since the guest was last asked whether it wants to know.
    used: bool,
}

impl<'a> Ring<'a> {
    /// Queue `index` of a device's queues; `None` while it is not ready.
    pub fn ready(index: usize, queues: &'a mut [Queue], memory: &'a GuestMemory) -> Option<Self> {
        let queue = queues.get_mut(index).filter(|queue| queue.ready())?;
        Some(Self { index, queue, memory, used: false })
    }

    /// Takes the next available chain; false when there is none.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, DeviceError> {
        let index = self.index;
        let table = GuestAddress(self.queue.desc_table());
        let size = self.queue.size();
        let head = self
            .queue
            .iter(self.memory)
            .map_err(|source| DeviceError::Ring { queue: index, source })?
            .next()
            .map(|chain| chain.head_index());
        let Some(head) = head else { return Ok(false) };
        chain.walk(self.memory, table, size, head).map_err(|bad| match bad {
            BadChain::Rule(reason) => DeviceError::Chain { queue: index, reason },
            BadChain::Buffer { address, length } => {
                DeviceError::Buffer { queue: index, address, length }
            }
        })?;
        Ok(true)
    }

    /// Puts the chain taken last back, to be taken again.
    pub fn undo_pop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Whether a chain is available.
    pub fn has_available(&self) -> Result<bool, DeviceError> {
        let available = self
            .queue
            .avail_idx(self.memory, Ordering::Acquire)
            .map_err(|source| DeviceError::Ring { queue: self.index, source })?;
        Ok(available.0 != self.queue.next_avail())
    }

    /// Gives a chain back, of which `written` bytes were written.
    pub fn push(&mut self, head: u16, written: u32) -> Result<(), DeviceError> {
        self.used = true;
        self.queue
            .add_used(self.memory, head, written)
            .map_err(|source| DeviceError::Ring { queue: self.index, source })
    }

    /// Asks the guest to kick when it makes another chain available. True when one has become
    /// available meanwhile, for which no kick may come.
    pub fn request_kick(&mut self) -> Result<bool, DeviceError> {
        self.queue
            .enable_notification(self.memory)
            .map_err(|source| DeviceError::Ring { queue: self.index, source })
    }

    /// What to tell the guest of the buffers used (virtio 1.3 sections 2.7.7.2 and 2.7.8).
    pub fn signals(&mut self) -> Result<Signals, DeviceError> {
        if !std::mem::take(&mut self.used) {
            return Ok(Signals::NONE);
        }
        let ring = |source| DeviceError::Ring { queue: self.index, source };
        let mut wanted = self.queue.needs_notification(self.memory).map_err(ring)?;
        if !self.queue.event_idx_enabled() {
            let flags: u16 = self
                .memory
                .load(GuestAddress(self.queue.avail_ring()), Ordering::Acquire)
                .map_err(|error| ring(virtio_queue::Error::GuestMemory(error)))?;
            wanted = u16::from_le(flags) & NO_INTERRUPT == 0;
        }
        Ok(if wanted { Signals::queue(self.index) } else { Signals::NONE })
    }

    /// The error for a chain that is well formed but not what the device takes.
    pub const fn bad_request(&self, reason: &'static str) -> DeviceError {
        DeviceError::Request { queue: self.index, reason }
    }
}
