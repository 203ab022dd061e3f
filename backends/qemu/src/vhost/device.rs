//! The device with its rings.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueState, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmoon_core::{Cid, Result};
use vmoon_virtio::device::FEATURE_EVENT_IDX;
use vmoon_virtio::vsock::{VsockDevice, VsockHost};
use vmoon_virtio::{Device, DeviceError, DeviceState, HostWaker, RestoreMode, Signals};

use super::calls::{Region, VhostCall};
use crate::memory::{BELOW_4_GIB, Ram};
use crate::process::Reach;

/// `VHOST_F_LOG_ALL`: QEMU saves no device without it. It logs only while a machine that runs is
/// migrated, which no machine here is.
const FEATURE_LOG_ALL: u64 = 1 << 26;

/// The rings that QEMU leaves to the device. The third, for events, it serves itself.
pub(crate) const RINGS: usize = 2;

/// The most entries that a ring may have (virtio 1.3, section 2.7). How many it has, QEMU settles
/// with the driver: QEMU 7.2 offers 128, QEMU 10 offers 1024.
const MOST_ENTRIES: u16 = 1 << 15;

/// What QEMU said of a ring.
#[derive(Debug, Default)]
struct Ring {
    size: u32,
    descriptors: u64,
    used: u64,
    available: u64,
    /// Where the available ring goes on.
    base: u16,
    /// Written when the guest kicks.
    kick: Option<OwnedFd>,
    /// Written to interrupt the guest.
    call: Option<File>,
}

/// The vsock device of a machine. It outlives QEMU processes.
#[derive(Debug)]
pub(crate) struct Vhost {
    device: VsockDevice,
    waker: HostWaker,
    ram: Arc<Ram>,
    rings: [Ring; RINGS],
    queues: Vec<Queue>,
    features: u64,
    /// Where RAM begins in QEMU's address space.
    ram_address: u64,
    running: bool,
    /// Where the rings stood when they stopped; unknown after a restore.
    stopped_at: Option<[u16; RINGS]>,
    /// Rings with more to do, one bit each.
    again: u64,
    broken: Option<String>,
}

impl Vhost {
    /// The device of a machine whose guest knows itself by `cid`.
    pub(crate) fn new(cid: Cid, ram: Arc<Ram>, waker: HostWaker) -> Self {
        let device = VsockDevice::new(cid, waker.clone());
        let queues = idle_queues(&device);
        Self {
            device,
            waker,
            ram,
            rings: Default::default(),
            queues,
            features: 0,
            ram_address: 0,
            running: false,
            stopped_at: Some([0; RINGS]),
            again: 0,
            broken: None,
        }
    }

    /// The host's handle.
    pub(crate) fn host(&self) -> VsockHost {
        self.device.host()
    }

    /// Carries out one of QEMU's calls; the error is an errno.
    pub(crate) fn call(&mut self, reach: &Reach, request: u32, argument: u64) -> Result<(), i32> {
        let outcome = VhostCall::read(reach, request, argument)
            .and_then(|call| self.obey(reach, argument, call));
        outcome.map_err(|error| {
            tracing::debug!(%error, request = format_args!("{request:#x}"), "vhost call failed");
            error.raw_os_error().unwrap_or(libc::EINVAL)
        })
    }

    fn obey(&mut self, reach: &Reach, argument: u64, call: VhostCall) -> io::Result<()> {
        match call {
            VhostCall::Nothing => {}
            VhostCall::GetFeatures => {
                let offered = self.device.features() | FEATURE_LOG_ALL;
                reach.write(argument, &offered.to_le_bytes())?;
            }
            VhostCall::SetFeatures(features) => self.features = features,
            VhostCall::GetBackendFeatures => reach.write(argument, &0_u64.to_le_bytes())?,
            VhostCall::SetMemory(regions) => self.set_memory(&regions)?,
            VhostCall::SetSize { ring, size } => self.ring(ring)?.size = size,
            VhostCall::SetAddresses { ring, descriptors, used, available } => {
                let ring = self.ring(ring)?;
                (ring.descriptors, ring.used, ring.available) = (descriptors, used, available);
            }
            VhostCall::SetBase { ring, base } => {
                self.ring(ring)?.base = u16::try_from(base).map_err(io::Error::other)?;
            }
            VhostCall::GetBase { ring } => {
                let base = self.base(ring)?;
                reach.write(argument + 4, &u32::from(base).to_le_bytes())?;
            }
            VhostCall::SetKick { ring, descriptor } => {
                let kick = duplicate(reach, descriptor)?;
                self.ring(ring)?.kick = kick;
            }
            VhostCall::SetCall { ring, descriptor } => {
                let call = duplicate(reach, descriptor)?;
                self.ring(ring)?.call = call.map(File::from);
            }
            VhostCall::SetRunning(true) => self.start()?,
            VhostCall::SetRunning(false) => self.stop(),
            VhostCall::Unknown => return Err(io::Error::from_raw_os_error(libc::ENOTTY)),
        }
        Ok(())
    }

    fn ring(&mut self, ring: usize) -> io::Result<&mut Ring> {
        self.rings.get_mut(ring).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    fn base(&self, ring: usize) -> io::Result<u16> {
        let queue = self.queues.get(ring).filter(|_| ring < RINGS);
        let queue = queue.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(if queue.ready() { queue.next_avail() } else { self.rings[ring].base })
    }

    fn set_memory(&mut self, regions: &[Region]) -> io::Result<()> {
        let first = regions.iter().find(|region| region.guest == 0);
        let first = first.filter(|region| region.length > 0).ok_or(io::ErrorKind::InvalidInput)?;
        self.ram_address = first.address;
        Ok(())
    }

    /// The guest's address of what QEMU has at `address`.
    fn guest_address(&self, address: u64) -> io::Result<u64> {
        let offset = address.checked_sub(self.ram_address).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(if offset < BELOW_4_GIB { offset } else { offset - BELOW_4_GIB + (1 << 32) })
    }

    /// The guest runs, with its driver ready.
    fn start(&mut self) -> io::Result<()> {
        let bases = [self.rings[0].base, self.rings[1].base];
        if self.stopped_at.is_some_and(|stopped| stopped != bases) {
            // The driver started over.
            self.device.reset();
            self.broken = None;
        }
        for index in 0..RINGS {
            self.queues[index] = self.queue(index)?;
        }
        self.device.activate(self.features);
        self.running = true;
        self.stopped_at = None;
        // Kicks from before are forgotten, and the host may have waited.
        self.again = (1 << RINGS) - 1;
        self.serve_host();
        Ok(())
    }

    /// The guest's processor has stopped, or the driver has reset the device.
    fn stop(&mut self) {
        self.running = false;
        for index in 0..RINGS {
            self.rings[index].base = self.base(index).unwrap_or(0);
        }
        self.stopped_at = Some([self.rings[0].base, self.rings[1].base]);
        self.queues = idle_queues(&self.device);
    }

    /// A ring as QEMU described it, checked.
    fn queue(&self, index: usize) -> io::Result<Queue> {
        let ring = &self.rings[index];
        let wrong = |error: virtio_queue::Error| io::Error::other(error.to_string());
        let (used, available) =
            (self.guest_address(ring.used)?, self.guest_address(ring.available)?);
        let memory = self.ram.memory();
        let next_used: u16 = memory
            .load(GuestAddress(used.saturating_add(2)), Ordering::Acquire)
            .map_err(io::Error::other)?;
        let queue = Queue::try_from(QueueState {
            max_size: MOST_ENTRIES,
            next_avail: ring.base,
            next_used: u16::from_le(next_used),
            event_idx_enabled: self.features & FEATURE_EVENT_IDX != 0,
            size: u16::try_from(ring.size).map_err(io::Error::other)?,
            ready: true,
            desc_table: self.guest_address(ring.descriptors)?,
            avail_ring: available,
            used_ring: used,
        })
        .map_err(wrong)?;
        if queue.is_valid(memory) { Ok(queue) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// What is written when the guest kicks each ring.
    pub(crate) fn kicks(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.rings.iter().filter_map(|ring| ring.kick.as_ref().map(AsFd::as_fd))
    }

    /// The guest kicked a ring, or may have.
    pub(crate) fn serve_guest(&mut self) {
        for index in 0..RINGS {
            self.process(index);
        }
    }

    /// The host has work for the device.
    pub(crate) fn serve_host(&mut self) {
        self.waker.rearm();
        let mut again = std::mem::take(&mut self.again);
        while again != 0 {
            self.process(again.trailing_zeros() as usize);
            again &= again - 1;
        }
        if self.works() {
            let result = self.device.process_host(&mut self.queues, self.ram.memory());
            self.apply(result);
        }
    }

    const fn works(&self) -> bool {
        self.running && self.broken.is_none()
    }

    fn process(&mut self, index: usize) {
        if self.works() && self.queues.get(index).is_some_and(QueueT::ready) {
            let result = self.device.process_queue(index, &mut self.queues, self.ram.memory());
            self.apply(result);
        }
    }

    fn apply(&mut self, result: Result<Signals, DeviceError>) {
        match result {
            Ok(signals) => {
                for index in 0..RINGS {
                    if signals.queues & (1 << index) != 0 {
                        self.rings[index].interrupt();
                    }
                }
                if signals.again != 0 {
                    self.again |= signals.again;
                    self.waker.wake();
                }
            }
            Err(error) => {
                let reason = error.to_string();
                tracing::warn!(device = "vsock", reason, "virtio device broken by its driver");
                self.device.reset();
                self.broken = Some(reason);
                self.again = 0;
            }
        }
    }

    /// The device's name and what it is doing, or why it is broken.
    pub(crate) fn describe(&self) -> (String, String) {
        let text = match &self.broken {
            Some(reason) => format!("broken: {reason}"),
            None => self.device.describe(),
        };
        (self.device.name().to_owned(), text)
    }

    /// The device's state. Its rings are part of QEMU's.
    pub(crate) fn save(&self) -> DeviceState {
        self.device.save()
    }

    /// Goes back to a saved state; QEMU puts the rings back.
    pub(crate) fn restore(
        &mut self,
        state: &DeviceState,
        mode: RestoreMode,
    ) -> Result<(), DeviceError> {
        self.device.restore(state, mode)?;
        self.detach();
        Ok(())
    }

    /// The QEMU process is gone, or its rings are about to change.
    pub(crate) fn detach(&mut self) {
        self.running = false;
        self.queues = idle_queues(&self.device);
        self.stopped_at = None;
        self.broken = None;
        self.again = 0;
    }
}

impl Ring {
    fn interrupt(&mut self) {
        // It fails only when the counter is full, and then an interrupt is on its way.
        if let Some(call) = &mut self.call
            && let Err(error) = call.write_all(&1_u64.to_ne_bytes())
        {
            tracing::debug!(%error, "interrupt not written");
        }
    }
}

fn idle_queues(device: &VsockDevice) -> Vec<Queue> {
    let sizes = device.queue_max_sizes().iter();
    sizes.map(|&size| Queue::new(size).expect("the device's sizes are powers of two")).collect()
}

/// A duplicate of a descriptor of QEMU's; none for a negative number.
fn duplicate(reach: &Reach, number: i32) -> io::Result<Option<OwnedFd>> {
    (number >= 0).then(|| reach.descriptor(number)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where RAM is in a QEMU that is not there.
    const BASE: u64 = 0x7f00_0000_0000;

    fn with_ring(entries: u32) -> Vhost {
        let ram = Arc::new(Ram::new(1 << 20).unwrap());
        let mut vhost = Vhost::new(Cid::FIRST_GUEST, ram, HostWaker::new(|| {}));
        vhost.ram_address = BASE;
        let (descriptors, available, used) = (BASE, BASE + 0x80000, BASE + 0xa0000);
        vhost.rings[0] =
            Ring { size: entries, descriptors, used, available, base: 7, ..Ring::default() };
        vhost
    }

    #[test]
    fn a_ring_is_as_large_as_qemu_and_the_driver_settled() {
        for entries in [2, 128, 1024, u32::from(MOST_ENTRIES)] {
            let queue = with_ring(entries).queue(0).unwrap();
            assert_eq!((u32::from(queue.size()), queue.next_avail()), (entries, 7));
        }
    }

    #[test]
    fn a_ring_that_cannot_be_is_refused() {
        for entries in [0, 3, 1000, u32::from(MOST_ENTRIES) + 1, 1 << 16, (1 << 16) + 128] {
            assert!(with_ring(entries).queue(0).is_err(), "{entries} entries");
        }
        let mut outside = with_ring(128);
        outside.rings[0].used = BASE + (1 << 20);
        assert!(outside.queue(0).is_err());
        outside.rings[0].used = BASE - 1;
        assert!(outside.queue(0).is_err());
    }
}
