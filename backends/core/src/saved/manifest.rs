//! The manifest: what a saved snapshot is, and how to tell that it is whole.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Code, Error, Result};
use crate::units::{Bytes, SnapshotId};

/// The version of the format that this program writes, and the only one that it reads.
pub const FORMAT: u32 = 1;

/// What a saved snapshot is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// See [`FORMAT`].
    pub format: u32,
    /// The name of the backend that wrote it, and alone can read it.
    pub backend: String,
    /// The processor's architecture, as `std::env::consts::ARCH` has it.
    pub architecture: String,
    /// The snapshot's id.
    pub id: SnapshotId,
    /// Bytes of RAM.
    pub memory: Bytes,
    /// Whether the machine was paused.
    pub paused: bool,
    /// What the backend must know of the machine.
    pub machine: serde_json::Value,
    /// What the layers above the backend keep with the snapshot.
    pub annotations: serde_json::Value,
    /// The other files of the directory, by name.
    pub parts: BTreeMap<String, Part>,
}

/// One file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The length of the file in bytes.
    pub length: u64,
    /// The hash of its contents in hexadecimal, see [`super::blocks`].
    pub hash: String,
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
        let mut json = serde_json::to_vec_pretty(&Sealed { manifest, hash })?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads the file's contents; `path` is for messages.
    pub(super) fn from_json(path: &Path, json: &[u8]) -> Result<Self> {
        let sealed: Sealed = serde_json::from_slice(json)
            .map_err(|error| corrupt(path, "is not a snapshot's manifest").with_source(error))?;
        if sealed.hash != seal(&sealed.manifest) {
            return Err(corrupt(path, "does not match its own hash"));
        }
        let format = sealed.manifest["format"].as_u64();
        if format != Some(FORMAT.into()) {
            let found = format.map_or_else(|| "no format".to_owned(), |it| format!("format {it}"));
            return Err(incompatible(
                path,
                format!("has {found}; this vmoon reads format {FORMAT}"),
            )
            .with_hint("load it with the vmoon that saved it"));
        }
        serde_json::from_value(sealed.manifest)
            .map_err(|error| corrupt(path, "lacks what a manifest must have").with_source(error))
    }
}

fn seal(manifest: &serde_json::Value) -> String {
    blake3::hash(manifest.to_string().as_bytes()).to_hex().to_string()
}

/// A part that is not what was written.
pub fn corrupt(path: &Path, what: impl std::fmt::Display) -> Error {
    about(Code::SnapshotCorrupt, path, what)
        .with_hint("the directory was changed or cut since it was saved; save the snapshot again")
}

/// A part that this host or program cannot use.
pub fn incompatible(path: &Path, what: impl std::fmt::Display) -> Error {
    about(Code::SnapshotIncompatible, path, what)
}

fn about(code: Code, path: &Path, what: impl std::fmt::Display) -> Error {
    let part = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Error::new(code, format!("{} {what}", path.display()))
        .with_detail("path", path.display().to_string())
        .with_detail("part", part)
}
