//! The file of a saved snapshot that memory comes from.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use rustix::fs;
use rustix::io;
use vmoon_core::Result;
use vmoon_core::saved::manifest::corrupt;

use super::bus_error::Watched;
use super::mapping::Mapping;

/// A file that was checked when it was loaded and must not change while it is mapped.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    stamp: Stamp,
    watched: Watched,
}

/// The length in bytes, and the time of the last change: seconds and nanoseconds.
type Stamp = (i64, i64, u64);

impl Source {
    /// The file at `path`, seen through `view`, which outlives the result.
    pub(super) fn new(path: PathBuf, file: BorrowedFd<'_>, view: &Mapping) -> io::Result<Self> {
        let watched = Watched::new(&view.range())
            .map_err(|error| io::Errno::from_io_error(&error).unwrap_or(io::Errno::IO))?;
        Ok(Self { path, stamp: stamp(file)?, watched })
    }

    /// Checks that nobody has written to the file since, nor cut it.
    ///
    /// # Errors
    /// `snapshot.corrupt`, naming the file.
    pub(super) fn check(&self, file: BorrowedFd<'_>) -> Result<()> {
        if !self.watched.is_broken() && stamp(file) == Ok(self.stamp) {
            return Ok(());
        }
        Err(corrupt(&self.path, "was changed after it was loaded")
            .with_hint("a saved snapshot is replaced by snap:save, never written to"))
    }
}

fn stamp(file: BorrowedFd<'_>) -> io::Result<Stamp> {
    let status = fs::fstat(file)?;
    Ok((status.st_size, status.st_mtime, status.st_mtime_nsec))
}
