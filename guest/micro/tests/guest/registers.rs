//! virtio-mmio registers (virtio 1.3 section 4.2.2): of a vsock device, and of devices that do
//! nothing.

/// Where the device's registers lie.
pub(crate) const BASE: u64 = 0xd000_0000;
/// Its interrupt.
pub(crate) const GSI: u32 = 10;
/// The guest's CID.
pub(crate) const GUEST_CID: u64 = 42;

pub(crate) const EVENT_IDX: u64 = 1 << 29;
pub(crate) const VERSION_1: u64 = 1 << 32;

/// Where a balloon device would have its registers, which nobody serves, and its interrupt.
pub(crate) const MUTE_BALLOON: (u64, u32) = (BASE + 0x1000, GSI + 1);
/// The same of an entropy device.
pub(crate) const MUTE_ENTROPY: (u64, u32) = (BASE + 0x2000, GSI + 2);

/// Kinds of devices (virtio 1.3 section 5).
const ENTROPY: u32 = 4;
const BALLOON: u32 = 5;
const VSOCK: u32 = 19;

/// What the driver told about a queue.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QueueAddresses {
    pub(crate) size: u32,
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    pub(crate) ready: bool,
}

/// The registers, as a vCPU sees them.
#[derive(Clone, Debug)]
pub(crate) struct Registers {
    kind: u32,
    pub(crate) offered: u64,
    pub(crate) accepted: u64,
    pub(crate) status: u32,
    pub(crate) interrupt_status: u32,
    pub(crate) queues: [QueueAddresses; 3],
    pub(crate) notifications: [u32; 3],
    device_select: u32,
    driver_select: u32,
    queue_select: usize,
}

impl Registers {
    pub(crate) fn new(offered: u64) -> Self {
        Self::of(VSOCK, offered)
    }

    /// Of the device that does nothing at this address.
    pub(crate) fn mute(base: u64) -> Self {
        Self::of(if base == MUTE_BALLOON.0 { BALLOON } else { ENTROPY }, VERSION_1)
    }

    fn of(kind: u32, offered: u64) -> Self {
        Self {
            kind,
            offered,
            accepted: 0,
            status: 0,
            interrupt_status: 0,
            queues: [QueueAddresses::default(); 3],
            notifications: [0; 3],
            device_select: 0,
            driver_select: 0,
            queue_select: 0,
        }
    }

    /// Whether the driver is done setting up.
    pub(crate) fn driver_ok(&self) -> bool {
        self.status & 4 != 0
    }

    pub(crate) fn read(&self, offset: u64) -> u32 {
        match offset {
            0x000 => 0x7472_6976,
            0x004 => 2,
            0x008 => self.kind,
            0x010 => half(self.offered, self.device_select),
            0x034 => 128,
            0x044 => u32::from(self.queues[self.queue_select].ready),
            0x060 => self.interrupt_status,
            0x070 => self.status,
            0x100 => half(GUEST_CID, 0),
            0x104 => half(GUEST_CID, 1),
            _ => 0,
        }
    }

    pub(crate) fn write(&mut self, offset: u64, value: u32) {
        let queue = &mut self.queues[self.queue_select];
        match offset {
            0x014 => self.device_select = value,
            0x020 => set_half(&mut self.accepted, self.driver_select, value),
            0x024 => self.driver_select = value,
            0x030 => self.queue_select = value.min(2) as usize,
            0x038 => queue.size = value,
            0x044 => queue.ready = value == 1,
            0x050 => self.notifications[value.min(2) as usize] += 1,
            0x064 => self.interrupt_status &= !value,
            0x070 => self.status = value,
            0x080 | 0x084 => set_half(&mut queue.descriptors, (offset >> 2 & 1) as u32, value),
            0x090 | 0x094 => set_half(&mut queue.available, (offset >> 2 & 1) as u32, value),
            0x0a0 | 0x0a4 => set_half(&mut queue.used, (offset >> 2 & 1) as u32, value),
            _ => {}
        }
    }
}

fn half(value: u64, which: u32) -> u32 {
    u32::try_from(value >> (32 * which) & 0xffff_ffff).unwrap_or_default()
}

fn set_half(target: &mut u64, which: u32, value: u32) {
    let shift = 32 * which;
    *target = *target & !(0xffff_ffff << shift) | u64::from(value) << shift;
}
