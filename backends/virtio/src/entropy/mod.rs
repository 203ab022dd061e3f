//! The entropy device (virtio 1.3 section 5.4).

mod state;

pub use state::{EntropySource, EntropyState};
