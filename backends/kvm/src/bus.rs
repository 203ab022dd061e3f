//! Where a guest's accesses to ports and to the MMIO hole go.

use crate::boot::layout;
use crate::legacy::PortBus;
use crate::vm::devices::Registers;

/// The address spaces of a machine outside RAM. Called from vCPU threads.
#[derive(Debug)]
pub(crate) struct Bus {
    /// The I/O ports.
    pub(crate) ports: PortBus,
    devices: Vec<Registers>,
}

impl Bus {
    /// A bus with these ports, and these virtio devices in the order of their addresses.
    pub(crate) fn new(ports: PortBus, devices: Vec<Registers>) -> Self {
        Self { ports, devices }
    }

    /// The guest reads; where there is no device it finds all ones.
    pub(crate) fn read(&self, address: u64, data: &mut [u8]) {
        match self.device(address) {
            Some((device, offset)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// The guest writes; where there is no device nothing happens.
    pub(crate) fn write(&self, address: u64, data: &[u8]) {
        if let Some((device, offset)) = self.device(address) {
            device.write(offset, data);
        }
    }

    fn device(&self, address: u64) -> Option<(&Registers, u64)> {
        let place = address.checked_sub(layout::VIRTIO_MMIO_BASE)?;
        let index = usize::try_from(place / layout::VIRTIO_MMIO_SIZE).ok()?;
        Some((self.devices.get(index)?, place % layout::VIRTIO_MMIO_SIZE))
    }
}
