//! What a guest sees as a disk, at one moment.

use std::io;
use std::ops::Range;

/// A disk that no longer changes: an image and what was written above it.
pub trait DiskContents: Send + Sync + std::fmt::Debug {
    /// The size in bytes.
    fn length(&self) -> u64;

    /// Fills `bytes` from `offset` on; the range lies within the disk.
    ///
    /// # Errors
    /// Those of the image beneath.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// The ranges outside of which all is zero: ascending and apart.
    ///
    /// # Errors
    /// Those of the image beneath.
    fn data(&self) -> io::Result<Vec<Range<u64>>>;
}
