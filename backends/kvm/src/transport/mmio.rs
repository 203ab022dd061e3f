//! The transport: a device, its queues, and when to interrupt the guest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use virtio_queue::{Queue, QueueT};
use vmoon_core::error::{Code, Error, Result};
use vmoon_virtio::{Device, DeviceError, GuestMemory, HostWaker, Signals};

use super::queue::QueueRegisters;
use super::registers::{INTERRUPT_CONFIG, INTERRUPT_QUEUE, status};

/// Why the guest was interrupted, until it acknowledges. Shared with the vCPU threads, which read
/// and acknowledge it in every interrupt, so that they need not wait for the device.
#[derive(Debug, Default)]
pub(crate) struct InterruptStatus(pub(super) AtomicU32);

impl InterruptStatus {
    /// The offsets of `InterruptStatus` and `InterruptACK`, which [`InterruptStatus::read`] and
    /// [`InterruptStatus::write`] serve without the transport.
    pub(crate) const READ_OFFSET: u64 = super::registers::INTERRUPT_STATUS;
    /// See [`InterruptStatus::READ_OFFSET`].
    pub(crate) const ACKNOWLEDGE_OFFSET: u64 = super::registers::INTERRUPT_ACK;

    /// The register's value.
    pub(crate) fn read(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// The guest has handled these causes.
    pub(crate) fn acknowledge(&self, causes: u32) {
        self.0.fetch_and(!causes, Ordering::AcqRel);
    }
}

/// A device behind virtio-mmio registers.
#[derive(Debug)]
pub(crate) struct MmioTransport {
    pub(super) device: Box<dyn Device>,
    pub(super) memory: GuestMemory,
    pub(super) waker: HostWaker,
    pub(super) queues: Vec<Queue>,
    pub(super) queue_registers: Vec<QueueRegisters>,
    pub(super) queue_select: u32,
    pub(super) device_features_select: u32,
    pub(super) driver_features_select: u32,
    pub(super) driver_features: u64,
    pub(super) status: u32,
    pub(super) config_generation: u32,
    pub(super) interrupt_status: Arc<InterruptStatus>,
    /// Queues to process at the next [`MmioTransport::host_wake`], one bit each.
    pub(super) again: u64,
    /// Whether the next [`MmioTransport::host_wake`] is to interrupt the guest: set where the
    /// cause arose on a vCPU thread, which raises no interrupts.
    pub(super) interrupt_pending: bool,
    /// Why the device stopped working.
    pub(super) broken: Option<String>,
}

impl MmioTransport {
    /// The offset of the `QueueNotify` register, where the backend puts its ioeventfds.
    pub(crate) const QUEUE_NOTIFY_OFFSET: u64 = super::registers::QUEUE_NOTIFY;

    /// A transport for a device. `waker` is the one that the device was made with.
    pub(crate) fn new(
        device: Box<dyn Device>,
        memory: GuestMemory,
        waker: HostWaker,
    ) -> Result<Self> {
        let queues = device
            .queue_max_sizes()
            .iter()
            .map(|&size| Queue::new(size))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| {
                Error::new(Code::VmSpec, format!("device {}: bad queue size", device.name()))
                    .with_source(error)
            })?;
        Ok(Self {
            queue_registers: vec![QueueRegisters::default(); queues.len()],
            device,
            memory,
            waker,
            queues,
            queue_select: 0,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            status: 0,
            config_generation: 0,
            interrupt_status: Arc::default(),
            again: 0,
            interrupt_pending: false,
            broken: None,
        })
    }

    /// The interrupt status, for the vCPU threads.
    pub(crate) fn interrupt_status(&self) -> Arc<InterruptStatus> {
        Arc::clone(&self.interrupt_status)
    }

    /// The number of queues, each of which wants an ioeventfd.
    pub(crate) fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// The device's name and what it is doing, or why it is broken.
    pub(crate) fn describe(&self) -> (String, String) {
        let text = match &self.broken {
            Some(reason) => format!("broken: {reason}"),
            None => self.device.describe(),
        };
        (self.device.name().to_owned(), text)
    }

    /// The guest kicked a queue. Whether the guest is to be interrupted.
    pub(crate) fn kick(&mut self, index: usize) -> bool {
        self.process(index) || std::mem::take(&mut self.interrupt_pending)
    }

    /// The device's waker fired. Whether the guest is to be interrupted.
    pub(crate) fn host_wake(&mut self) -> bool {
        self.waker.rearm();
        let mut interrupt = std::mem::take(&mut self.interrupt_pending);
        let mut again = std::mem::take(&mut self.again);
        while again != 0 {
            interrupt |= self.process(again.trailing_zeros() as usize);
            again &= again - 1;
        }
        if self.works() {
            let result = self.device.process_host(&mut self.queues, &self.memory);
            interrupt |= self.apply(result);
        }
        interrupt
    }

    fn process(&mut self, index: usize) -> bool {
        if !self.works() || !self.queues.get(index).is_some_and(QueueT::ready) {
            return false;
        }
        let result = self.device.process_queue(index, &mut self.queues, &self.memory);
        self.apply(result)
    }

    /// Whether the driver is ready and the device not broken.
    const fn works(&self) -> bool {
        self.status & (status::DRIVER_OK | status::NEEDS_RESET) == status::DRIVER_OK
    }

    fn apply(&mut self, result: Result<Signals, DeviceError>) -> bool {
        match result {
            Ok(signals) => {
                if signals.queues != 0 {
                    self.interrupt_status.0.fetch_or(INTERRUPT_QUEUE, Ordering::AcqRel);
                }
                if signals.config {
                    self.config_generation = self.config_generation.wrapping_add(1);
                    self.interrupt_status.0.fetch_or(INTERRUPT_CONFIG, Ordering::AcqRel);
                }
                if signals.again != 0 {
                    self.again |= signals.again;
                    self.waker.wake();
                }
                signals.interrupts()
            }
            Err(error) => {
                self.fail(describe_error(&error));
                std::mem::take(&mut self.interrupt_pending)
            }
        }
    }

    /// The device cannot go on until the driver resets it (virtio 1.3 section 2.1.1).
    pub(super) fn fail(&mut self, reason: String) {
        tracing::warn!(device = self.device.name(), reason, "virtio device broken by its driver");
        self.device.reset();
        self.broken = Some(reason);
        self.again = 0;
        self.status |= status::NEEDS_RESET;
        if self.status & status::DRIVER_OK != 0 {
            self.config_generation = self.config_generation.wrapping_add(1);
            self.interrupt_status.0.fetch_or(INTERRUPT_CONFIG, Ordering::AcqRel);
            self.interrupt_pending = true;
            self.waker.wake();
        }
    }
}

/// An error with its causes.
fn describe_error(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
