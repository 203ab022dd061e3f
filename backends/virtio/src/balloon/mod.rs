//! The memory balloon (virtio 1.3 section 5.5).

mod device;
mod host;
mod pages;
mod reclaim;
mod state;
mod statistics;
#[cfg(test)]
mod tests;

pub use device::Balloon;
pub use host::BalloonHost;
pub use reclaim::ReclaimMemory;
pub use state::BalloonState;
