//! Snapshots on disk: one directory each, the same for every backend.
//!
//! | file | holds |
//! | --- | --- |
//! | `manifest.json` | what the snapshot is, with the length and the hash of each part, and a hash of itself |
//! | the parts | what the backend keeps: memory as a sparse file, and all other state |
//!
//! | module | holds |
//! | --- | --- |
//! | [`manifest`] | [`Manifest`] and the errors about it |
//! | [`blocks`] | the hash of a part, which does not depend on how a file system keeps holes |
//! | [`write`] | [`Writer`]: a temporary name, fsync, rename |
//! | [`read`] | [`Saved`]: opens, checks and describes a directory; needs no hypervisor |
//! | [`images`] | [`DiskImage`](images::DiskImage): what lies beneath overlays, which a snapshot does not hold |
//! | [`folder`] | finding and removing directories that are snapshots |
//! | [`progress`] | [`Progress`]: how far the work is, and the way to stop it |
//!
//! A directory needs no other: parents are flattened. Whoever looks sees the old snapshot or the
//! new one, never half of either, even when the writer is killed.

pub mod blocks;
pub mod folder;
pub mod images;
pub mod manifest;
pub mod progress;
pub mod read;
pub mod write;

pub use manifest::{Manifest, Part};
pub use progress::{Progress, Step, Work};
pub use read::Saved;
pub use write::{PartWriter, Writer};

/// The name of the manifest in a snapshot's directory.
pub const MANIFEST: &str = "manifest.json";

/// How the names of unfinished and replaced directories begin.
const TEMPORARY: &str = ".vmoon-saving-";
