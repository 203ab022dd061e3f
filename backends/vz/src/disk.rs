//! Disks as they were at one moment.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use vmoon_core::disk::DiskContents;
use vmoon_core::disk::extents::extents;
use vmoon_core::{Code, Error, Result};

/// A raw image: one that nobody writes, or a clone of our own.
#[derive(Debug)]
pub(crate) struct RawImage {
    file: File,
    length: u64,
}

impl RawImage {
    /// Opens an image. A clone may be removed afterwards: the descriptor keeps it.
    ///
    /// # Errors
    /// `file.*`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (length, file) = opened.map_err(|error| {
            let code = match error.kind() {
                io::ErrorKind::NotFound => Code::FileNotFound,
                io::ErrorKind::PermissionDenied => Code::FilePermission,
                _ => Code::FileIo,
            };
            Error::new(code, format!("the disk {} cannot be read", path.display()))
                .with_source(error)
                .with_detail("path", path.display().to_string())
        })?;
        Ok(Self { file, length })
    }
}

impl DiskContents for RawImage {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    fn data(&self) -> io::Result<Vec<Range<u64>>> {
        extents(&self.file, self.length)
    }
}
