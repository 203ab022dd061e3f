//! Gives back to the host what the guest's balloon gave up.

use std::sync::Arc;

use vm_memory::GuestAddress;
use vmoon_virtio::balloon::ReclaimMemory;

use super::PAGE_SIZE;
use super::ram::Ram;

/// Frees the host memory behind guest pages.
#[derive(Debug)]
pub(crate) struct Reclaimer(pub(crate) Arc<Ram>);

impl ReclaimMemory for Reclaimer {
    fn reclaim(&mut self, start: GuestAddress, length: u64) -> std::io::Result<()> {
        let out_of_range = || std::io::Error::from(std::io::ErrorKind::InvalidInput);
        let offset = self.0.offset_of(start.0, length).ok_or_else(out_of_range)?;
        let length = usize::try_from(length).map_err(|_| out_of_range())?;
        if !offset.is_multiple_of(PAGE_SIZE) || !length.is_multiple_of(PAGE_SIZE) {
            return Err(out_of_range());
        }
        // SAFETY: devices are driven by one thread, the one that calls this, and hold no
        // reference across calls.
        unsafe { self.0.reclaim(offset, length) }?;
        // The pages changed without KVM's knowing.
        self.0.written().mark(offset, length);
        Ok(())
    }
}
