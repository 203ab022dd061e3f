//! What this backend keeps of a snapshot on disk, in the directory that
//! [`vmoon_core::saved`] writes and checks.
//!
//! | part | holds |
//! | --- | --- |
//! | `memory` | every page that is not zero, at its own offset: a sparse file that can be mapped |
//! | `state` | vCPUs, interrupt controllers, clock, devices and overlay disks |
//!
//! The manifest's `machine` is a [`machine::SavedMachine`]. Loading checks every hash and then
//! maps `memory` copy-on-write: nothing is copied.

mod cpu_features;
mod machine;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use read::read;
pub(crate) use write::write;

/// The name of the pages.
const MEMORY: &str = "memory";
/// The name of all other state.
const STATE: &str = "state";
