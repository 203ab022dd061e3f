//! Finding and removing directories that are snapshots.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::read::Saved;
use super::{MANIFEST, TEMPORARY, write};
use crate::error::{Code, Error, Result};

/// How deep below a directory snapshots are looked for.
const MOST_LEVELS: usize = 8;

/// The snapshots at or below a directory, in the order of their names, whole or not. What may
/// not be read is passed over, and so is what begins with a dot.
///
/// # Errors
/// `file.*` for the directory itself.
pub fn find(directory: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |error: io::Error| {
        let (code, what) = match error.kind() {
            io::ErrorKind::NotFound => (Code::FileNotFound, "does not exist"),
            io::ErrorKind::PermissionDenied => (Code::FilePermission, "may not be read"),
            _ => (Code::FileIo, "cannot be read"),
        };
        Error::new(code, format!("{} {what}", directory.display()))
            .with_source(error)
            .with_detail("path", directory.display().to_string())
    };
    fs::read_dir(directory).map_err(unreadable)?;
    let mut found = Vec::new();
    walk(directory, MOST_LEVELS, &mut found);
    Ok(found)
}

fn walk(directory: &Path, levels: usize, found: &mut Vec<PathBuf>) {
    if is_snapshot(directory) {
        found.push(directory.to_owned());
    } else if levels > 0 {
        let below: BTreeSet<PathBuf> = fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
            .map(|entry| entry.path())
            .collect();
        for directory in &below {
            walk(directory, levels - 1, found);
        }
    }
}

/// Whether a directory is a snapshot, whole or damaged.
pub fn is_snapshot(directory: &Path) -> bool {
    let manifest = directory.join(MANIFEST);
    // A damaged one is known by what all manifests begin with.
    let claims = || {
        let text = fs::read(&manifest).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.contains("\"manifest\"") && text.contains("\"annotations\"")
    };
    manifest.is_file() && (Saved::open(directory).is_ok() || claims())
}

/// Whether a new snapshot may take the directory's place: it is one, or empty.
pub(super) fn is_replaceable(directory: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(directory)?.next().is_none() || is_snapshot(directory))
}

/// Removes a snapshot's directory, whole or damaged: at one moment for whoever looks.
///
/// # Errors
/// `snapshot.not_found` when nothing is there; `file.io` when it is not a snapshot, or holds
/// files that are none of a snapshot's; `file.*`.
pub fn remove(directory: &Path) -> Result<()> {
    let refused = |code: Code, what: String| {
        Error::new(code, what).with_detail("path", directory.display().to_string())
    };
    let shown = directory.display();
    if !directory.exists() {
        return Err(refused(Code::SnapshotNotFound, format!("there is no snapshot at {shown}")));
    }
    if !is_snapshot(directory) {
        return Err(refused(
            Code::FileIo,
            format!("{shown} is not a snapshot; nothing was removed"),
        )
        .with_hint("`vmoon snapshot ls` lists the snapshots in a directory"));
    }
    let failed = |error: io::Error| {
        refused(Code::FileIo, format!("{shown} cannot be removed")).with_source(error)
    };
    if let Some(name) = foreign_entry(directory).map_err(failed)? {
        return Err(refused(
            Code::FileIo,
            format!("{shown} holds {name:?}, which is not part of a snapshot; nothing was removed"),
        ));
    }
    let target = fs::canonicalize(directory).map_err(failed)?;
    let parent = target.parent().unwrap_or(&target);
    let (temporary, _lock) = write::temporary_in(parent).map_err(failed)?;
    fs::rename(&target, temporary.path().join("removed")).map_err(failed)?;
    temporary.close().map_err(failed)
}

/// Something in the directory that no writer of snapshots put there. What a damaged manifest
/// names is not known; then any file may be a part.
fn foreign_entry(directory: &Path) -> io::Result<Option<String>> {
    let saved = Saved::open(directory).ok();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let named = saved
            .as_ref()
            .is_none_or(|saved| name == MANIFEST || saved.manifest().parts.contains_key(&name));
        if !named || !entry.file_type()?.is_file() {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Removes what killed writers left in `parent`, as far as it can be.
pub(super) fn remove_abandoned(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let left = entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()));
    for entry in left {
        let path = entry.path();
        let locked = File::open(&path)
            .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err());
        if !locked && let Err(error) = fs::remove_dir_all(&path) {
            tracing::debug!(%error, path = %path.display(), "an abandoned directory stays");
        }
    }
}
