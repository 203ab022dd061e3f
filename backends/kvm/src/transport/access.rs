//! Register accesses by the guest's driver, on vCPU threads.

use virtio_queue::QueueT;
use vmoon_virtio::device::{FEATURE_EVENT_IDX, FEATURE_VERSION_1};

use super::mmio::MmioTransport;
use super::queue::QueueRegisters;
#[allow(clippy::wildcard_imports, reason = "a list of offsets, nearly all of which are used")]
use super::registers::*;

impl MmioTransport {
    /// The guest reads `data.len()` bytes at `offset` from the device's first register.
    ///
    /// Registers are read with aligned accesses of four bytes (virtio 1.3 section 4.2.2.2); any
    /// other access to them reads zeroes.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if offset >= CONFIG {
            self.device.read_config(offset - CONFIG, data);
        } else if let Ok(register) = <&mut [u8; 4]>::try_from(data) {
            *register = self.read_register(offset).to_le_bytes();
        }
    }

    fn read_register(&self, offset: u64) -> u32 {
        let selected = usize::try_from(self.queue_select).unwrap_or(usize::MAX);
        match offset {
            MAGIC_VALUE => MAGIC,
            VERSION => MMIO_VERSION,
            DEVICE_ID => self.device.kind() as u32,
            VENDOR_ID => VENDOR,
            DEVICE_FEATURES => half(self.device.features(), self.device_features_select),
            QUEUE_SIZE_MAX => self.queues.get(selected).map_or(0, |queue| queue.max_size().into()),
            QUEUE_READY => self.queues.get(selected).is_some_and(QueueT::ready).into(),
            INTERRUPT_STATUS => self.interrupt_status.read(),
            STATUS => self.status,
            CONFIG_GENERATION => self.config_generation,
            // There is no shared memory: lengths and bases read as all ones (section 4.2.2.1).
            SHM_LEN_LOW..=SHM_BASE_HIGH => u32::MAX,
            _ => 0,
        }
    }

    /// The guest writes `data` at `offset` from the device's first register. What it may not
    /// write, or not now, is ignored.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        if offset >= CONFIG {
            if self.status & status::DRIVER != 0 && self.status & status::NEEDS_RESET == 0 {
                self.device.write_config(offset - CONFIG, data);
            }
        } else if let Ok(register) = <[u8; 4]>::try_from(data) {
            self.write_register(offset, u32::from_le_bytes(register));
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            DEVICE_FEATURES_SEL => self.device_features_select = value,
            DRIVER_FEATURES_SEL => self.driver_features_select = value,
            QUEUE_SEL => self.queue_select = value,
            DRIVER_FEATURES => self.write_features(value),
            INTERRUPT_ACK => self.interrupt_status.acknowledge(value),
            STATUS => self.write_status(value),
            // The backend's ioeventfd takes this; what still comes here is left to its thread.
            QUEUE_NOTIFY => {
                if usize::try_from(value).is_ok_and(|index| index < self.queues.len()) {
                    self.again |= 1 << value;
                    self.waker.wake();
                }
            }
            _ => self.write_queue(offset, value),
        }
    }

    fn write_features(&mut self, value: u32) {
        if self.status & (status::DRIVER | status::FEATURES_OK) != status::DRIVER {
            return;
        }
        let value = u64::from(value);
        match self.driver_features_select {
            0 => self.driver_features = self.driver_features & !0xffff_ffff | value,
            1 => self.driver_features = self.driver_features & 0xffff_ffff | value << 32,
            // Bits from 64 on: none is offered.
            _ => {}
        }
    }

    fn write_queue(&mut self, offset: u64, value: u32) {
        // Queues are set up between FEATURES_OK and DRIVER_OK (section 3.1.1).
        if self.status & (status::FEATURES_OK | status::DRIVER_OK) != status::FEATURES_OK {
            return;
        }
        let Ok(index) = usize::try_from(self.queue_select) else { return };
        let Some(registers) = self.queue_registers.get_mut(index) else { return };
        match offset {
            QUEUE_SIZE => registers.size = value,
            QUEUE_DESC_LOW => set_low(&mut registers.descriptors, value),
            QUEUE_DESC_HIGH => set_high(&mut registers.descriptors, value),
            QUEUE_DRIVER_LOW => set_low(&mut registers.driver_area, value),
            QUEUE_DRIVER_HIGH => set_high(&mut registers.driver_area, value),
            QUEUE_DEVICE_LOW => set_low(&mut registers.device_area, value),
            QUEUE_DEVICE_HIGH => set_high(&mut registers.device_area, value),
            QUEUE_READY if value == 0 => self.queues[index].reset(),
            QUEUE_READY => {
                let event_index = self.driver_features & FEATURE_EVENT_IDX != 0;
                let registers = *registers;
                let queue = &mut self.queues[index];
                if let Err(reason) = registers.apply(queue, event_index, &self.memory) {
                    self.fail(format!("queue {index} cannot be used: {reason}"));
                }
            }
            _ => {}
        }
    }

    fn write_status(&mut self, value: u32) {
        if value == 0 {
            self.reset();
            return;
        }
        let set = value & status::WRITABLE & !self.status;
        // The driver sets bits and never clears one, but for a reset (section 2.1.1).
        self.status |= set & !(status::FEATURES_OK | status::DRIVER_OK);
        if set & status::FEATURES_OK != 0
            && self.status & status::DRIVER != 0
            && self.driver_features & !self.device.features() == 0
            && self.driver_features & FEATURE_VERSION_1 != 0
        {
            self.status |= status::FEATURES_OK;
        }
        if set & status::DRIVER_OK != 0
            && self.status & (status::FEATURES_OK | status::NEEDS_RESET) == status::FEATURES_OK
        {
            self.status |= status::DRIVER_OK;
            self.device.activate(self.driver_features);
            // What the host wants of the guest has waited for this.
            self.waker.wake();
        }
    }

    /// Back to the beginning, at the driver's request.
    fn reset(&mut self) {
        self.device.reset();
        for queue in &mut self.queues {
            queue.reset();
        }
        self.queue_registers.fill(QueueRegisters::default());
        self.queue_select = 0;
        self.device_features_select = 0;
        self.driver_features_select = 0;
        self.driver_features = 0;
        self.status = 0;
        self.interrupt_status.acknowledge(u32::MAX);
        self.again = 0;
        self.interrupt_pending = false;
        self.broken = None;
    }
}

/// The 32 bits of a 64-bit set that a selector register chooses.
const fn half(bits: u64, select: u32) -> u32 {
    match select {
        0 => (bits & 0xffff_ffff) as u32,
        1 => (bits >> 32) as u32,
        _ => 0,
    }
}

const fn set_low(register: &mut u64, value: u32) {
    *register = *register & !0xffff_ffff | value as u64;
}

const fn set_high(register: &mut u64, value: u32) {
    *register = *register & 0xffff_ffff | (value as u64) << 32;
}
