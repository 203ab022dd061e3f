//! The disk images beneath a saved machine's overlays: not part of the snapshot, but it is worth
//! nothing without them, nor above others.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::manifest::incompatible;
use crate::error::{Code, Error, Result};
use crate::spec::{Disk, DiskMode};
use serde::{Deserialize, Serialize};

/// An image as it was when the snapshot was saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskImage {
    path: PathBuf,
    /// Bytes.
    length: u64,
    /// When it was last written: seconds and nanoseconds since 1970.
    modified: (i64, i64),
}

impl DiskImage {
    /// The image of a disk whose image must stay as it is; the machine itself writes to others.
    ///
    /// # Errors
    /// Those of looking at the image.
    pub fn of(disk: &Disk) -> Option<io::Result<Self>> {
        (disk.readonly || disk.mode == DiskMode::Overlay).then(|| Self::at(&disk.path))
    }

    fn at(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Ok(Self { path: path.to_owned(), length: metadata.len(), modified })
    }

    /// Checks that the image is what it was; `manifest` is for messages.
    ///
    /// # Errors
    /// `snapshot.incompatible` when it has changed, `file.*` when it cannot be read.
    pub fn check(&self, manifest: &Path) -> Result<()> {
        let path = self.path.display();
        let here = Self::at(&self.path).map_err(|error| {
            let code = match error.kind() {
                io::ErrorKind::NotFound => Code::FileNotFound,
                io::ErrorKind::PermissionDenied => Code::FilePermission,
                _ => Code::FileIo,
            };
            Error::new(code, format!("the saved machine's disk image {path} cannot be read"))
                .with_source(error)
                .with_detail("path", path.to_string())
        })?;
        if here == *self {
            return Ok(());
        }
        Err(incompatible(
            manifest,
            format!("needs the disk image {path} as it was; it has changed"),
        )
        .with_hint("put the image back with its time of modification (cp -p, rsync -t)")
        .with_detail("image", path.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_changed_or_is_gone_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        let disk = |readonly, mode| Disk { path: path.clone(), readonly, mode };
        assert!(DiskImage::of(&disk(false, DiskMode::Direct)).is_none());
        fs::write(&path, "0123456789").unwrap();
        let image = DiskImage::of(&disk(true, DiskMode::Direct)).unwrap().unwrap();
        let manifest = Path::new("manifest.json");
        image.check(manifest).unwrap();
        fs::write(&path, "01234567890").unwrap();
        let changed = image.check(manifest).unwrap_err();
        assert_eq!(changed.code(), Code::SnapshotIncompatible);
        assert!(changed.message().contains("disk.img"), "{changed}");
        fs::remove_file(&path).unwrap();
        assert_eq!(image.check(manifest).unwrap_err().code(), Code::FileNotFound);
    }
}
