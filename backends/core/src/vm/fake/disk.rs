//! A disk of one sector.

use std::io;
use std::ops::Range;

use crate::disk::DiskContents;

#[derive(Debug)]
pub(super) struct FakeDisk;

impl DiskContents for FakeDisk {
    fn length(&self) -> u64 {
        512
    }

    fn read(&self, _: u64, bytes: &mut [u8]) -> io::Result<()> {
        bytes.fill(b'd');
        Ok(())
    }

    fn data(&self) -> io::Result<Vec<Range<u64>>> {
        Ok(std::iter::once(0..512).collect())
    }
}
