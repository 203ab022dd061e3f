//! What a snapshot keeps of the console.

use serde::{Deserialize, Serialize};

/// The state of the console. Input that the guest has not taken yet is the host's, not the
/// guest's: a restore leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleState {
    /// See [`STATE_VERSION`](crate::state::STATE_VERSION).
    pub version: u32,
}
