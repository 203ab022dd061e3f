//! Sockets between host and guest (virtio 1.3 section 5.10).

mod state;

pub use state::{ConnectionState, VsockState};
