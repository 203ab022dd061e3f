//! Where QEMU's saved state has the event ring of its vsock device.
//!
//! When QEMU loads such a device whose event ring is in use, it tells the guest that all its
//! connections are gone: that is true of a machine that moves to another host. Here they live on,
//! so the saved state must say that there is no such ring; nothing else ever comes through it.
//! The device's registers, by which the guest sees the ring, are elsewhere in the state.

use std::io;

/// The end of the section's name. The device's address comes before it.
const NAME: &[u8] = b"/virtio-vhost_vsock";

/// How far after the name the queues may begin: what comes before them depends on the transport.
const FARTHEST: usize = 16 << 10;
/// The length of the device's configuration, which is its CID.
const CONFIGURATION: u32 = 8;
/// The queues, and which of them is for events.
const QUEUES: u32 = 3;
const EVENT_QUEUE: usize = 2;
/// Each queue has its size, on virtio-mmio an alignment, its address, where the available ring
/// goes on, and on PCI an interrupt vector.
const LARGEST_QUEUE: u32 = 1024;
const ALIGNMENT: u32 = 4096;
const MMIO_QUEUE: usize = 4 + 4 + 8 + 2;
const PCI_QUEUE: usize = 4 + 8 + 2 + 2;

/// The position of the event ring's address in the state of a guest that knows itself by `cid`.
///
/// # Errors
/// `InvalidData` where the state is not laid out as QEMU 7.2 has it.
pub(super) fn event_ring(bytes: &[u8], cid: u64) -> io::Result<usize> {
    let unknown = || io::Error::new(io::ErrorKind::InvalidData, "QEMU's vsock state looks unknown");
    let name = bytes.windows(NAME.len()).position(|window| window == NAME).ok_or_else(unknown)?;
    let word = |at: usize| {
        let word = bytes.get(at..at + 4)?.first_chunk()?;
        Some(u32::from_be_bytes(*word))
    };
    let mut start = CONFIGURATION.to_be_bytes().to_vec();
    start.extend(cid.to_le_bytes());
    start.extend(QUEUES.to_be_bytes());
    let behind = &bytes[name..bytes.len().min(name + FARTHEST)];
    let found = behind.windows(start.len()).position(|window| window == start);
    let queues = name + found.ok_or_else(unknown)? + start.len();
    let (length, address) =
        if word(queues + 4) == Some(ALIGNMENT) { (MMIO_QUEUE, 8) } else { (PCI_QUEUE, 4) };
    let is_size = |size: u32| size.is_power_of_two() && size <= LARGEST_QUEUE;
    if !(0..QUEUES as usize).all(|index| word(queues + index * length).is_some_and(is_size)) {
        return Err(unknown());
    }
    let position = queues + EVENT_QUEUE * length + address;
    if position + 8 <= bytes.len() { Ok(position) } else { Err(unknown()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(mmio: bool, queues: u32) -> Vec<u8> {
        let mut bytes = b"anything virtio-mmio@00000000feb00000".to_vec();
        bytes.extend(NAME);
        bytes.extend([0; 28]);
        bytes.extend(CONFIGURATION.to_be_bytes());
        bytes.extend(3_u64.to_le_bytes());
        bytes.extend(queues.to_be_bytes());
        for index in 0..queues {
            bytes.extend((32_u32 << index).to_be_bytes());
            bytes.extend(mmio.then_some(ALIGNMENT.to_be_bytes()).into_iter().flatten());
            bytes.extend((u64::from(index + 7) << 32).to_be_bytes());
            bytes.extend([0; 2]);
            bytes.extend((!mmio).then_some([0; 2]).into_iter().flatten());
        }
        bytes
    }

    #[test]
    fn the_ring_is_found() {
        for mmio in [true, false] {
            let bytes = state(mmio, 3);
            let position = event_ring(&bytes, 3).unwrap();
            assert_eq!(bytes[position..position + 8], (9_u64 << 32).to_be_bytes());
        }
    }

    #[test]
    fn what_looks_otherwise_is_refused() {
        assert!(event_ring(b"", 3).is_err());
        for mmio in [true, false] {
            assert!(event_ring(&state(mmio, 2), 3).is_err());
            assert!(event_ring(&state(mmio, 3), 4).is_err());
            let mut cut = state(mmio, 3);
            cut.truncate(cut.len() - 6);
            assert!(event_ring(&cut, 3).is_err());
            let mut odd = state(mmio, 3);
            let at = odd.len() - if mmio { MMIO_QUEUE } else { PCI_QUEUE };
            odd[at] = 1;
            assert!(event_ring(&odd, 3).is_err());
        }
    }
}
