//! The manifest: what a saved snapshot is, and how to tell that it is whole.

use std::path::{Path, PathBuf};

use kvm_bindings::kvm_cpuid_entry2;
use serde::{Deserialize, Serialize};
use vmoon_core::{Bytes, Code, Error, Result, SnapshotId};

use crate::vm::plan::DevicePlan;

/// The version of the format that this program writes, and the only one that it reads.
pub(super) const FORMAT: u32 = 1;

/// What a saved snapshot is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// See [`FORMAT`].
    pub(super) format: u32,
    /// `kvm`.
    pub(super) backend: String,
    /// The processor's architecture.
    pub(super) architecture: String,
    pub(super) id: SnapshotId,
    /// Bytes of RAM.
    pub(super) memory: Bytes,
    /// Whether the machine was paused.
    pub(super) paused: bool,
    /// The virtio devices, in the order of their addresses.
    pub(super) devices: Vec<DevicePlan>,
    /// Whether the guest reads its virtio console rather than the serial port.
    pub(super) types_virtio: bool,
    /// The CPUID of each vCPU.
    pub(super) cpuid: Vec<Vec<kvm_cpuid_entry2>>,
    /// What the layers above keep with the snapshot.
    pub(super) annotations: serde_json::Value,
    /// The pages that are not zero.
    pub(super) memory_part: Part,
    /// Everything else.
    pub(super) state_part: Part,
}

/// One file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    /// The length of the file in bytes.
    pub(super) length: u64,
    /// The hash of its contents, as hexadecimal BLAKE3.
    pub(super) hash: String,
}

/// The manifest as it stands in its file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    manifest: serde_json::Value,
    /// The hash of `manifest`, written without white space.
    hash: String,
}

impl Manifest {
    /// The file's contents.
    pub(super) fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let manifest = serde_json::to_value(self)?;
        let hash = seal(&manifest);
        serde_json::to_vec_pretty(&Sealed { manifest, hash })
    }

    /// Reads the file's contents.
    pub(super) fn from_json(path: &Path, json: &[u8]) -> Result<Self> {
        let sealed: Sealed = serde_json::from_slice(json)
            .map_err(|error| corrupt(path, "is not a snapshot's manifest").with_source(error))?;
        if sealed.hash != seal(&sealed.manifest) {
            return Err(corrupt(path, "does not match its own hash"));
        }
        let format = sealed.manifest["format"].as_u64();
        if format != Some(FORMAT.into()) {
            let found = format.map_or_else(|| "no format".to_owned(), |format| format.to_string());
            return Err(incompatible(
                path,
                format!("has format {found}; this vmoon reads format {FORMAT}"),
            ));
        }
        serde_json::from_value(sealed.manifest)
            .map_err(|error| corrupt(path, "lacks what a manifest must have").with_source(error))
    }
}

fn seal(manifest: &serde_json::Value) -> String {
    blake3::hash(manifest.to_string().as_bytes()).to_hex().to_string()
}

/// A part that is not what was written.
pub(super) fn corrupt(path: &Path, what: &str) -> Error {
    Error::new(Code::SnapshotCorrupt, format!("{} {what}", path.display()))
        .with_hint("the directory was changed or cut since it was saved; save the snapshot again")
        .with_detail("path", path.display().to_string())
        .with_detail("part", part_name(path))
}

/// A snapshot that this host or program cannot use.
pub(super) fn incompatible(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::new(Code::SnapshotIncompatible, format!("{} {what}", path.display()))
        .with_detail("path", path.display().to_string())
}

fn part_name(path: &Path) -> String {
    PathBuf::from(path.file_name().unwrap_or_default()).display().to_string()
}
