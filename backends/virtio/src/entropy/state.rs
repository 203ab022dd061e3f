//! What a snapshot keeps of the entropy device.

use serde::{Deserialize, Serialize};

/// Where the random bytes come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntropySource {
    /// The host's kernel.
    #[default]
    Os,
    /// The `ChaCha20` stream of a seed, so that every run from a snapshot is the same. For tests,
    /// never for secrets.
    Seeded {
        /// The seed.
        seed: u64,
        /// How many bytes of the stream have been handed out.
        position: u64,
    },
}

/// The state of the entropy device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntropyState {
    /// See [`STATE_VERSION`](crate::state::STATE_VERSION).
    pub version: u32,
    /// Where the bytes come from.
    pub source: EntropySource,
}
