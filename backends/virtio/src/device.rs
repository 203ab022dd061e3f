//! What every device offers its transport.

use std::fmt::Debug;

use virtio_queue::Queue;

use crate::memory::GuestMemory;
use crate::state::DeviceState;

/// The feature bit `VIRTIO_F_INDIRECT_DESC` (virtio 1.3 section 6).
pub const FEATURE_INDIRECT_DESC: u64 = 1 << 28;
/// The feature bit `VIRTIO_F_EVENT_IDX` (virtio 1.3 section 6).
pub const FEATURE_EVENT_IDX: u64 = 1 << 29;
/// The feature bit `VIRTIO_F_VERSION_1` (virtio 1.3 section 6).
pub const FEATURE_VERSION_1: u64 = 1 << 32;
/// What every device here offers.
pub const COMMON_FEATURES: u64 = FEATURE_INDIRECT_DESC | FEATURE_EVENT_IDX | FEATURE_VERSION_1;

/// The kind of a device, with its number (virtio 1.3 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum DeviceKind {
    /// A block device.
    Block = 2,
    /// A console.
    Console = 3,
    /// A source of entropy.
    Entropy = 4,
    /// A memory balloon.
    Balloon = 5,
    /// Sockets between host and guest.
    Vsock = 19,
}

impl DeviceKind {
    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Console => "console",
            Self::Entropy => "entropy",
            Self::Balloon => "balloon",
            Self::Vsock => "vsock",
        }
    }
}

/// What the transport has to tell the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Signals {
    /// One bit for each queue whose used buffers the guest wants to hear of.
    pub queues: u64,
    /// Whether the configuration space changed.
    pub config: bool,
    /// One bit for each queue that has more to do: the call stopped because it had done enough.
    /// The owner calls [`Device::process_queue`] again, after its other work.
    pub again: u64,
}

impl Signals {
    /// Nothing to tell.
    pub const NONE: Self = Self { queues: 0, config: false, again: 0 };

    /// That a queue has used buffers.
    pub const fn queue(index: usize) -> Self {
        Self { queues: 1 << index, ..Self::NONE }
    }

    /// That the configuration space changed.
    pub const fn config() -> Self {
        Self { config: true, ..Self::NONE }
    }

    /// That a queue has more to do.
    pub const fn again(index: usize) -> Self {
        Self { again: 1 << index, ..Self::NONE }
    }

    /// Whether the guest is to be interrupted.
    pub const fn interrupts(self) -> bool {
        self.queues != 0 || self.config
    }
}

impl std::ops::BitOr for Signals {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self {
            queues: self.queues | other.queues,
            config: self.config | other.config,
            again: self.again | other.again,
        }
    }
}

impl std::ops::BitOrAssign for Signals {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

/// What the guest's driver did that the device cannot go on from. The transport sets
/// `DEVICE_NEEDS_RESET` (virtio 1.3 section 2.1.1); the driver may reset the device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// A ring cannot be read or written, or its indexes make no sense.
    #[error("queue {queue}: the ring is not usable")]
    Ring {
        /// The queue's index.
        queue: usize,
        /// What is wrong with it.
        source: virtio_queue::Error,
    },
    /// A descriptor chain breaks the rules of virtio 1.3 section 2.7.
    #[error("queue {queue}: bad descriptor chain: {reason}")]
    Chain {
        /// The queue's index.
        queue: usize,
        /// Which rule.
        reason: &'static str,
    },
    /// A buffer lies outside of guest RAM.
    #[error("queue {queue}: {length} bytes at {address:#x} are not RAM")]
    Buffer {
        /// The queue's index.
        queue: usize,
        /// The buffer's guest physical address.
        address: u64,
        /// The buffer's length in bytes.
        length: u64,
    },
    /// The buffers are well formed, but not what this device takes.
    #[error("queue {queue}: {reason}")]
    Request {
        /// The queue's index.
        queue: usize,
        /// What is wrong with the request.
        reason: &'static str,
    },
    /// The device has no such queue.
    #[error("the device has no queue {0}")]
    NoQueue(usize),
    /// A snapshot's state does not fit this device.
    #[error("the saved state is of {saved}, the device is {device}")]
    WrongState {
        /// What the state is of.
        saved: &'static str,
        /// What the device is.
        device: &'static str,
    },
    /// A snapshot's state is of the same kind, but not of this device.
    #[error("the saved state does not fit: {0}")]
    StateDoesNotFit(&'static str),
}

/// Reads from a configuration space of these bytes; what lies beyond reads as zero.
pub(crate) fn read_config_bytes(config: &[u8], offset: u64, data: &mut [u8]) {
    data.fill(0);
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    if let Some(rest) = config.get(start..) {
        let count = rest.len().min(data.len());
        data[..count].copy_from_slice(&rest[..count]);
    }
}

/// Into what a state is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreMode {
    /// Into the device that the state was saved from: what its host side holds lives on where
    /// it can.
    InPlace,
    /// Into a device of another machine, made just now: a fork or a loaded snapshot.
    Fresh,
}

/// A virtio device. Single-threaded: driven by its owner's event loop.
///
/// The order of calls: `activate` once the driver set `DRIVER_OK`, then `process_queue` and
/// `process_host` in any order, until `reset` starts over. `read_config` and `write_config` are
/// legal at any time. Before `activate` and after an error the owner calls `process_host` only
/// with queues that are not ready, or not at all.
pub trait Device: Send + Debug {
    /// The kind.
    fn kind(&self) -> DeviceKind;

    /// A short name for people, such as `vsock`.
    fn name(&self) -> &str;

    /// The largest size of each queue, in descriptors: powers of two.
    fn queue_max_sizes(&self) -> &[u16];

    /// The feature bits offered, [`COMMON_FEATURES`] among them.
    fn features(&self) -> u64;

    /// The driver is ready and accepted these features, a subset of those offered.
    fn activate(&mut self, features: u64);

    /// Reads from the device's configuration space; what lies beyond it reads as zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes to the device's configuration space; what is not writable is ignored.
    fn write_config(&mut self, offset: u64, data: &[u8]);

    /// The guest kicked queue `index`. Bounded: returns with [`Signals::again`] when there is
    /// more to do.
    fn process_queue(
        &mut self,
        index: usize,
        queues: &mut [Queue],
        memory: &GuestMemory,
    ) -> Result<Signals, DeviceError>;

    /// The device's [`HostWaker`](crate::HostWaker) fired. Bounded: wakes itself again when there
    /// is more to do.
    fn process_host(
        &mut self,
        queues: &mut [Queue],
        memory: &GuestMemory,
    ) -> Result<Signals, DeviceError>;

    /// The driver reset the device, or the device broke: everything that the guest knows of is
    /// forgotten.
    fn reset(&mut self);

    /// One line for people: what the device is doing.
    fn describe(&self) -> String;

    /// The state that a snapshot keeps. Costs follow what changed, not the size of a disk.
    fn save(&self) -> DeviceState;

    /// Goes back to a saved state. On an error nothing has changed.
    fn restore(&mut self, state: &DeviceState, mode: RestoreMode) -> Result<(), DeviceError>;
}
