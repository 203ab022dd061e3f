//! Snapshots on disk: one directory each.
//!
//! | file | holds |
//! | --- | --- |
//! | `manifest.json` | what the snapshot is, and the length and hash of each part, with a hash of itself |
//! | `memory` | every page that is not zero, at its own offset: a sparse file that can be mapped |
//! | `state` | vCPUs, interrupt controllers, clock, devices and overlay disks |
//!
//! Parents are flattened: a directory needs no other. It is written under a temporary name,
//! synchronised and renamed, so whoever looks sees the old snapshot or the new one, never half.
//! Loading checks every hash and then maps `memory` copy-on-write: nothing is copied.

mod cpu_features;
mod manifest;
mod read;
mod write;

pub(crate) use read::{Loaded, read};
pub(crate) use write::write;

/// The name of the manifest in a snapshot's directory.
const MANIFEST: &str = "manifest.json";
/// The name of the pages.
const MEMORY: &str = "memory";
/// The name of all other state.
const STATE: &str = "state";
