//! Giving the guest's pages back to the host.

use std::io;

use vm_memory::GuestAddress;

/// Frees the host memory behind guest pages. Provided by the backend, which knows how guest
/// memory is mapped.
pub trait ReclaimMemory: Send + std::fmt::Debug {
    /// Frees `length` bytes from `start`: whole pages, inside one region of RAM. Afterwards they
    /// read as zero, and the pages count as dirty.
    ///
    /// # Errors
    /// What the host's kernel refused. The pages may then hold anything that they held before.
    fn reclaim(&mut self, start: GuestAddress, length: u64) -> io::Result<()>;
}
