//! Frozen machines, and the machines that are made from them.

mod frozen;
pub(crate) mod saved;

pub(crate) use frozen::{Frozen, OwnState, QemuSnapshot, blocking, no_disk};
