//! What this process serves to a QEMU process, on a thread of its own: its vhost calls and rings,
//! its disks, its entropy and its consoles.

mod attendant;
mod channels;
mod disk;
mod entropy;

pub(crate) use attendant::{Attendant, Served, Sockets};
pub(crate) use channels::{Channels, Ends};
pub(crate) use entropy::EntropyServer;
