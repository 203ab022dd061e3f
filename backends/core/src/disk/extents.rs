//! Where a sparse file holds data.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;

use rustix::fs::SeekFrom;

/// The unit of what is data and what is a hole, in bytes.
pub const BLOCK: usize = 4096;

/// The ranges of a file that are not holes, widened to whole blocks, in order and apart.
///
/// # Errors
/// Those of `lseek`.
pub fn extents(file: &File, length: u64) -> io::Result<Vec<Range<u64>>> {
    let mut extents = Vec::new();
    let mut position = 0;
    while position < length {
        let start = match rustix::fs::seek(file.as_fd(), SeekFrom::Data(position)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            // A file system that does not know of holes.
            Err(rustix::io::Errno::INVAL) => position,
            Err(error) => return Err(error.into()),
        };
        let end = match rustix::fs::seek(file.as_fd(), SeekFrom::Hole(start)) {
            Ok(end) => end,
            Err(rustix::io::Errno::INVAL) => length,
            Err(error) => return Err(error.into()),
        };
        position = end.max(start + 1);
        let start = start / BLOCK as u64 * BLOCK as u64;
        append(&mut extents, start..position.next_multiple_of(BLOCK as u64).min(length));
    }
    Ok(extents)
}

/// Adds a range that begins nowhere before the last one to a list of ranges, as part of the last
/// one where they touch.
pub fn append(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
        _ if range.start < range.end => ranges.push(range),
        _ => {}
    }
}

/// Whether a block, or the shorter last one, is all zero.
pub fn is_zero(block: &[u8]) -> bool {
    const ZEROES: [u8; BLOCK] = [0; BLOCK];
    ZEROES.get(..block.len()) == Some(block)
}

/// How many bytes the ranges have in all.
pub fn total(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}
