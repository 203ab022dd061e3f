//! Which pages of a file hold data.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::{SeekFrom, seek};

use super::PAGE;

/// The ranges of pages of `file`, of `length` bytes, that are not holes: in order and apart.
pub(super) fn populated(file: &File, length: u64) -> io::Result<Vec<Range<usize>>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut position = 0;
    while position < length {
        let start = match seek(file, SeekFrom::Data(position)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(file, SeekFrom::Hole(start))?.min(length);
        position = end.max(start + 1);
        let page = |at: u64| usize::try_from(at / PAGE as u64).map_err(io::Error::other);
        let (first, last) = (page(start)?, page(end.next_multiple_of(PAGE as u64))?);
        match ranges.last_mut() {
            Some(range) if first <= range.end => range.end = range.end.max(last),
            _ => ranges.push(first..last),
        }
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn holes_are_left_out() {
        let file =
            File::from(rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.set_len(64 * PAGE as u64).unwrap();
        assert_eq!(populated(&file, 64 * PAGE as u64).unwrap(), []);
        for page in [3, 4, 9] {
            file.write_all_at(&[1], page * PAGE as u64 + 7).unwrap();
        }
        assert_eq!(populated(&file, 64 * PAGE as u64).unwrap(), [3..5, 9..10]);
    }
}
