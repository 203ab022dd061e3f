//! Sockets between host and guest (virtio 1.3 section 5.10), with the host's side in this
//! process.
//!
//! The device runs on its owner's thread. [`VsockHost`] opens and answers connections from any
//! task; each connection is a pair of bounded byte queues (`pipe`) between the device and the
//! host's stream. A host that does not read stops giving the guest credit; a guest that does not
//! read stops the host's writer.
//!
//! # Snapshots
//! A connection is *idle* if it is established both ways and no byte is under way: the host has
//! read all that the guest sent, and all that the host sent lies in the guest's memory. An idle
//! connection lives on through a restore, its counters rewound under the host's stream; every
//! other is cut on both sides.

mod buffer;
mod connection;
mod delays;
mod device;
mod faults;
mod host;
mod line;
mod listener;
mod packet;
mod pipe;
mod receive;
mod send;
mod shared;
mod snapshot;
mod state;
mod stream;
mod table;
#[cfg(test)]
mod tests;

pub use device::VsockDevice;
pub use host::VsockHost;
pub use state::{ConnectionState, VsockState};
