//! The virtio devices of a machine, wired to KVM: an ioeventfd for the guest's kicks, an irqfd for
//! its interrupts, and an event for work from the host's side.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;
use vmoon_core::{Code, Error, Result};
use vmoon_virtio::block::BlockState;
use vmoon_virtio::{Device, HostWaker, RestoreMode};

use super::shell::cannot;
use crate::boot::layout;
use crate::machine::events::{Wakeup, Wakeups};
use crate::memory::ram::Ram;
use crate::transport::{InterruptStatus, MmioTransport, TransportState};
use crate::vcpu::state::failed;

/// The virtio devices, in the order of their addresses. Driven by the machine's thread.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    transport: Arc<Mutex<MmioTransport>>,
    /// Written by KVM when the guest kicks any queue of the device.
    kicked: EventFd,
    /// Written by whoever has work for the device on the host's side.
    host_work: Arc<EventFd>,
    /// Written to interrupt the guest.
    interrupt: EventFd,
}

/// The registers of one device, as vCPU threads reach them.
#[derive(Debug)]
pub(crate) struct Registers {
    transport: Arc<Mutex<MmioTransport>>,
    interrupt_status: Arc<InterruptStatus>,
}

fn lock(transport: &Mutex<MmioTransport>) -> MutexGuard<'_, MmioTransport> {
    transport.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An event that nobody waits for by reading.
pub(crate) fn event() -> Result<EventFd> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
        .map_err(|error| cannot("make an event", error))
}

impl Devices {
    /// Puts a device at the next address. `make` gets the waker by which the device's host side
    /// asks for the machine's thread.
    pub(crate) fn attach(
        &mut self,
        vm: &VmFd,
        ram: &Arc<Ram>,
        make: impl FnOnce(HostWaker) -> Result<Box<dyn Device>>,
    ) -> Result<()> {
        let index = u32::try_from(self.slots.len()).expect("few devices");
        if index >= layout::VIRTIO_MMIO_MAX_DEVICES {
            let most = layout::VIRTIO_MMIO_MAX_DEVICES;
            return Err(Error::new(Code::VmSpec, format!("a machine has at most {most} devices"))
                .with_hint("give it fewer disks"));
        }
        let (kicked, host_work, interrupt) = (event()?, Arc::new(event()?), event()?);
        let waker = HostWaker::new({
            let host_work = host_work.clone();
            // A full counter wakes the thread as well.
            move || drop(host_work.write(1))
        });
        let device = make(waker.clone())?;
        let transport = MmioTransport::new(device, ram.memory().clone(), waker)?;
        let notify = layout::virtio_mmio_address(index).0 + MmioTransport::QUEUE_NOTIFY_OFFSET;
        vm.register_ioevent(&kicked, &IoEventAddress::Mmio(notify), NoDatamatch)
            .map_err(|error| failed("KVM_IOEVENTFD", error))?;
        vm.register_irqfd(&interrupt, layout::virtio_mmio_gsi(index))
            .map_err(|error| failed("KVM_IRQFD", error))?;
        self.slots.push(Slot {
            transport: Arc::new(Mutex::new(transport)),
            kicked,
            host_work,
            interrupt,
        });
        Ok(())
    }

    /// The number of devices.
    pub(crate) fn count(&self) -> usize {
        self.slots.len()
    }

    /// The registers of all devices, for the bus.
    pub(crate) fn registers(&self) -> Vec<Registers> {
        let registers = |slot: &Slot| Registers {
            transport: slot.transport.clone(),
            interrupt_status: lock(&slot.transport).interrupt_status(),
        };
        self.slots.iter().map(registers).collect()
    }

    /// Has the machine's thread woken by these devices.
    pub(crate) fn watch(&self, wakeups: &Wakeups) -> io::Result<()> {
        for (index, slot) in self.slots.iter().enumerate() {
            wakeups.add(&slot.kicked, Wakeup::Kicked(index))?;
            wakeups.add(&slot.host_work, Wakeup::HostWork(index))?;
        }
        Ok(())
    }

    /// Serves the queues of a device that the guest kicked.
    pub(crate) fn kicked(&self, index: usize) {
        if let Some(slot) = self.slots.get(index) {
            let mut transport = lock(&slot.transport);
            let mut interrupt = false;
            for queue in 0..transport.queue_count() {
                interrupt |= transport.kick(queue);
            }
            slot.interrupt_if(interrupt);
        }
    }

    /// Serves a device that has work from the host's side.
    pub(crate) fn host_work(&self, index: usize) {
        if let Some(slot) = self.slots.get(index) {
            let interrupt = lock(&slot.transport).host_wake();
            slot.interrupt_if(interrupt);
        }
    }

    /// Serves every queue once more: what the guest left in them before it ended, such as the
    /// last words on its console.
    pub(crate) fn drain(&self) {
        for index in 0..self.slots.len() {
            self.kicked(index);
        }
    }

    /// The state of all devices; no vCPU runs.
    pub(crate) fn save(&self) -> Vec<TransportState> {
        self.slots.iter().map(|slot| lock(&slot.transport).save()).collect()
    }

    /// The state of all disks, in their order.
    pub(crate) fn save_blocks(&self) -> Vec<BlockState> {
        self.slots.iter().filter_map(|slot| lock(&slot.transport).save_block()).collect()
    }

    /// Puts the state of all devices back; memory is back already, and no vCPU runs.
    pub(crate) fn restore(&self, states: &[TransportState], mode: RestoreMode) -> Result<()> {
        for (slot, state) in self.slots.iter().zip(states) {
            let mut transport = lock(&slot.transport);
            transport.restore(state, mode)?;
            slot.interrupt_if(transport.host_wake());
        }
        Ok(())
    }

    /// Each device's name and what it is doing.
    pub(crate) fn describe(&self) -> Vec<(String, String)> {
        self.slots.iter().map(|slot| lock(&slot.transport).describe()).collect()
    }
}

impl Slot {
    fn interrupt_if(&self, wanted: bool) {
        // It fails only when the counter is full, and then an interrupt is on its way.
        if wanted && let Err(error) = self.interrupt.write(1) {
            tracing::debug!(%error, "interrupt not written");
        }
    }
}

impl Registers {
    /// The guest reads a register or the configuration.
    pub(crate) fn read(&self, offset: u64, data: &mut [u8]) {
        match <&mut [u8; 4]>::try_from(&mut *data) {
            Ok(word) if offset == InterruptStatus::READ_OFFSET => {
                *word = self.interrupt_status.read().to_le_bytes();
            }
            _ => lock(&self.transport).read(offset, data),
        }
    }

    /// The guest writes a register or the configuration.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) {
        match <[u8; 4]>::try_from(data) {
            Ok(word) if offset == InterruptStatus::ACKNOWLEDGE_OFFSET => {
                self.interrupt_status.acknowledge(u32::from_le_bytes(word));
            }
            _ => lock(&self.transport).write(offset, data),
        }
    }
}
