//! The block device (virtio 1.3 section 5.2): a raw image, written in place, or one that is raw or
//! qcow2 under an overlay in memory.

mod contents;
mod device;
mod discard;
mod disk;
mod failures;
mod faults;
mod image;
mod overlay;
mod qcow2;
mod state;
#[cfg(test)]
mod tests;

pub use contents::BlockHost;
pub use device::BlockDevice;
pub use disk::Disk;
pub use failures::Failures;
pub use overlay::{CLUSTER_SIZE, Overlay, bytes_added};
pub use state::BlockState;
