//! No two live machines share an identifier: what becomes of their guests is undefined.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use vmoon_core::{Code, Error, Result};

static LIVE: LazyLock<Mutex<HashSet<Vec<u8>>>> = LazyLock::new(Mutex::default);

fn live() -> MutexGuard<'static, HashSet<Vec<u8>>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An identifier that belongs to one live machine of this process until this is dropped.
#[derive(Debug)]
pub struct LiveIdentifier(Vec<u8>);

impl LiveIdentifier {
    /// Claims an identifier.
    ///
    /// # Errors
    /// `backend.unsupported` while another machine lives under it.
    pub fn claim(identifier: &[u8]) -> Result<Self> {
        if live().insert(identifier.to_owned()) {
            return Ok(Self(identifier.to_owned()));
        }
        Err(Error::new(
            Code::BackendUnsupported,
            "the machine of this snapshot is still there, and vz cannot run two of it",
        )
        .with_hint("vm:restore(snapshot), or close the machine first")
        .with_detail("backend", "vz")
        .with_detail("feature", "fork"))
    }

    /// The identifier.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for LiveIdentifier {
    fn drop(&mut self) {
        live().remove(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_machine_at_a_time() {
        let first = LiveIdentifier::claim(b"the identity test").unwrap();
        let error = LiveIdentifier::claim(b"the identity test").unwrap_err();
        assert_eq!(error.code(), Code::BackendUnsupported);
        drop(first);
        assert_eq!(LiveIdentifier::claim(b"the identity test").unwrap().bytes().len(), 17);
    }
}
