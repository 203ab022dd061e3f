//! What the driver wrote of a queue, until it says that the queue is ready.

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueState, QueueT};
use vm_memory::GuestAddress;
use vmoon_virtio::GuestMemory;

/// The registers of one queue. Taken over by the queue when the driver sets it ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct QueueRegisters {
    pub(super) size: u32,
    pub(super) descriptors: u64,
    pub(super) driver_area: u64,
    pub(super) device_area: u64,
}

impl QueueRegisters {
    /// Makes `queue` what the registers say; the error says why it cannot be.
    pub(super) fn apply(
        self,
        queue: &mut Queue,
        event_index: bool,
        memory: &GuestMemory,
    ) -> Result<(), String> {
        queue.reset();
        let size = u16::try_from(self.size).unwrap_or(0);
        let max_size = queue.max_size();
        queue.try_set_size(size).map_err(|_| {
            format!("its size is {}, which is no power of two up to {max_size}", self.size)
        })?;
        let misaligned = |error: virtio_queue::Error| error.to_string();
        queue.try_set_desc_table_address(GuestAddress(self.descriptors)).map_err(misaligned)?;
        queue.try_set_avail_ring_address(GuestAddress(self.driver_area)).map_err(misaligned)?;
        queue.try_set_used_ring_address(GuestAddress(self.device_area)).map_err(misaligned)?;
        queue.set_event_idx(event_index);
        queue.set_ready(true);
        if !queue.is_valid(memory) {
            queue.reset();
            return Err("its rings are not all in RAM".to_owned());
        }
        Ok(())
    }
}

/// A queue in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedQueue {
    registers: QueueRegisters,
    max_size: u16,
    next_avail: u16,
    next_used: u16,
    event_index: bool,
    size: u16,
    ready: bool,
    descriptors: u64,
    driver_area: u64,
    device_area: u64,
}

impl SavedQueue {
    pub(super) fn new(queue: &Queue, registers: QueueRegisters) -> Self {
        let state = queue.state();
        Self {
            registers,
            max_size: state.max_size,
            next_avail: state.next_avail,
            next_used: state.next_used,
            event_index: state.event_idx_enabled,
            size: state.size,
            ready: state.ready,
            descriptors: state.desc_table,
            driver_area: state.avail_ring,
            device_area: state.used_ring,
        }
    }

    pub(super) const fn registers(self) -> QueueRegisters {
        self.registers
    }

    pub(super) const fn max_size(self) -> u16 {
        self.max_size
    }

    /// The queue; the error says why a damaged state is none.
    pub(super) fn queue(self, memory: &GuestMemory) -> Result<Queue, String> {
        let queue = Queue::try_from(QueueState {
            max_size: self.max_size,
            next_avail: self.next_avail,
            next_used: self.next_used,
            event_idx_enabled: self.event_index,
            size: self.size,
            ready: self.ready,
            desc_table: self.descriptors,
            avail_ring: self.driver_area,
            used_ring: self.device_area,
        })
        .map_err(|error| error.to_string())?;
        if queue.ready() && !queue.is_valid(memory) {
            return Err("its rings are not all in RAM".to_owned());
        }
        Ok(queue)
    }
}
