//! The console (virtio 1.3 section 5.3), with one port.

mod state;

pub use state::ConsoleState;
