//! What a snapshot keeps of a block device.

use serde::{Deserialize, Serialize};
use vmoon_core::faults::BlockRule;

use super::Overlay;
use crate::faults::Active;

/// The state of a block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockState {
    /// See [`STATE_VERSION`](crate::state::STATE_VERSION).
    pub version: u32,
    /// The size of the image in sectors of 512 bytes; a state fits an image of the same size
    /// only.
    pub sectors: u64,
    /// Whether each write is to last at once: the driver accepted no flush.
    pub write_through: bool,
    /// What was written above the image; `None` where writes go into the image itself.
    pub overlay: Option<Overlay>,
    /// The faults in force; on disk there are none.
    #[serde(skip)]
    pub faults: Vec<Active<BlockRule>>,
}
