//! What a wait in the guest saw last.

use std::sync::{Arc, Mutex, PoisonError};

/// How much of what a guest says is kept.
const LONGEST: usize = 1024;

/// What a wait saw last, for the error of its timeout. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed(Arc<Mutex<Option<String>>>);

impl Observed {
    /// The guest sees something new.
    pub(super) fn set(&self, text: &[u8]) {
        let text = String::from_utf8_lossy(&text[..text.len().min(LONGEST)]).into_owned();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    /// What was seen last; none when the guest has said nothing.
    pub(crate) fn last(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
