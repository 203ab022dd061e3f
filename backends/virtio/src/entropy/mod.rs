//! The entropy device (virtio 1.3 section 5.4).

mod device;
mod host;
mod state;
#[cfg(test)]
mod tests;

pub use device::Entropy;
pub use host::EntropyHost;
pub use state::{EntropySource, EntropyState};
