//! The memory balloon (virtio 1.3 section 5.5).

mod reclaim;
mod state;

pub use reclaim::ReclaimMemory;
pub use state::BalloonState;
