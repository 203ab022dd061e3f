//! virtio-mmio (virtio 1.3 section 4.2), version 2: registers, queues and the status machine
//! around a [`vmoon_virtio::Device`].
//!
//! [`MmioTransport`] knows no eventfd: the machine's thread calls it when a queue was kicked or a
//! device's waker fired, and raises the interrupt where it says so. vCPU threads call it for
//! register accesses; [`InterruptStatus`] alone is shared without a lock.

mod access;
mod mmio;
mod queue;
mod registers;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use mmio::{InterruptStatus, MmioTransport};
pub(crate) use state::TransportState;
