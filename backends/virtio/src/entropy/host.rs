//! The host's handle to the entropy device.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::state::EntropySource;

/// Chooses where the bytes come from. Clones share one device.
#[derive(Clone, Debug, Default)]
pub struct EntropyHost(Arc<Mutex<EntropySource>>);

impl EntropyHost {
    fn lock(&self) -> MutexGuard<'_, EntropySource> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next bytes from `source`.
    pub fn set(&self, source: EntropySource) {
        *self.lock() = source;
    }

    /// Where the next bytes come from.
    pub fn source(&self) -> EntropySource {
        *self.lock()
    }

    /// Fills `bytes` from the source.
    ///
    /// # Errors
    /// When the host's kernel gives none.
    pub fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        match &mut *self.lock() {
            EntropySource::Os => {
                getrandom::fill(bytes).map_err(io::Error::other)?;
            }
            EntropySource::Seeded { seed, position } => {
                let mut stream = ChaCha20Rng::seed_from_u64(*seed);
                // Positions are counted in bytes, the stream's in words of four.
                stream.set_word_pos(u128::from(position.div_ceil(4)));
                stream.fill_bytes(bytes);
                *position = position.next_multiple_of(4) + bytes.len() as u64;
            }
        }
        Ok(())
    }
}
