//! The console (virtio 1.3 section 5.3), with one port.

mod device;
mod host;
mod state;
#[cfg(test)]
mod tests;

pub use device::{ConsoleDevice, ConsoleSink};
pub use host::ConsoleHost;
pub use state::ConsoleState;
