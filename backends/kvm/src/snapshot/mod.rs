//! Frozen machines, and the machines that are made from them.

pub(crate) mod fork;
pub(crate) mod frozen;
pub(crate) mod saved;
