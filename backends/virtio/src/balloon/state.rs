//! What a snapshot keeps of the balloon.

use serde::{Deserialize, Serialize};

/// The state of the balloon. Which pages it holds is the guest's knowledge, in its RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonState {
    /// See [`STATE_VERSION`](crate::state::STATE_VERSION).
    pub version: u32,
    /// Whether the guest's driver had accepted the device.
    pub active: bool,
    /// Pages of 4 KiB that the balloon should hold.
    pub target_pages: u32,
    /// Pages of 4 KiB that the guest says it holds.
    pub actual_pages: u32,
    /// The chain in the statistics queue that the guest waits to get back.
    pub held_statistics: Option<u16>,
    /// The features that the driver accepted.
    pub features: u64,
}
