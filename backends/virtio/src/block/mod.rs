//! The block device (virtio 1.3 section 5.2).

mod overlay;
mod state;

pub use overlay::{CLUSTER_SIZE, Overlay};
pub use state::BlockState;
