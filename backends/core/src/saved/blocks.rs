//! The hash of a part: of the number and the contents of each block that is not zero, in order,
//! and of the length. So it costs what the file holds, and does not depend on how a file system
//! keeps holes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::progress::Progress;
use crate::disk::extents::{extents, is_zero, total};

/// The length of a block in bytes. The last block of a part may be shorter.
pub use crate::disk::extents::BLOCK;

/// How much is read at once; whole blocks.
const CHUNK: usize = 1 << 20;

/// A hash in the making.
#[derive(Debug, Default)]
pub(super) struct BlockHasher(blake3::Hasher);

impl BlockHasher {
    /// Adds a block unless it is zero; whether it was added. Blocks come in ascending order.
    pub(super) fn add(&mut self, index: u64, contents: &[u8]) -> bool {
        let zero = is_zero(contents);
        if !zero {
            self.0.update(&index.to_le_bytes());
            self.0.update(contents);
        }
        !zero
    }

    /// The hash of a part of this length.
    pub(super) fn finish(mut self, length: u64) -> String {
        self.0.update(&length.to_le_bytes());
        self.0.finalize().to_hex().to_string()
    }
}

/// The hash of a file of `length` bytes. It is read, not mapped: a disk that fails is an error,
/// not a signal.
pub(super) fn hash(file: &File, length: u64, progress: &Progress) -> io::Result<String> {
    let mut hasher = BlockHasher::default();
    let mut buffer = vec![0; CHUNK];
    for Range { start, end } in extents(file, length)? {
        let mut position = start;
        while position < end {
            let count = usize::try_from(end - position).map_or(CHUNK, |rest| rest.min(CHUNK));
            let chunk = &mut buffer[..count];
            file.read_exact_at(chunk, position)?;
            for (index, block) in (position / BLOCK as u64..).zip(chunk.chunks(BLOCK)) {
                hasher.add(index, block);
            }
            position += count as u64;
            progress.advance(count as u64)?;
        }
    }
    Ok(hasher.finish(length))
}

/// The hash of a part with these contents.
pub(super) fn hash_of_bytes(bytes: &[u8]) -> String {
    let mut hasher = BlockHasher::default();
    for (index, block) in (0..).zip(bytes.chunks(BLOCK)) {
        hasher.add(index, block);
    }
    hasher.finish(bytes.len() as u64)
}

/// How many bytes of a file are not holes.
pub(super) fn data_length(file: &File, length: u64) -> io::Result<u64> {
    Ok(total(&extents(file, length)?))
}

#[cfg(test)]
mod tests {
    use super::super::progress::Work;
    use super::*;

    fn hash_of(file: &File, length: u64) -> String {
        hash(file, length, &Progress::new(Work::Verifying, None)).unwrap()
    }

    #[test]
    fn holes_and_zeroes_are_the_same_and_lengths_are_not() {
        let sparse = tempfile::tempfile().unwrap();
        sparse.set_len(40 * BLOCK as u64 + 7).unwrap();
        sparse.write_all_at(&[7; 100], 5 * BLOCK as u64 + 4090).unwrap();
        sparse.write_all_at(&[9], 40 * BLOCK as u64 + 6).unwrap();
        let length = 40 * BLOCK as u64 + 7;
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        sparse.read_exact_at(&mut bytes, 0).unwrap();
        let full = tempfile::tempfile().unwrap();
        full.write_all_at(&bytes, 0).unwrap();
        assert_eq!(hash_of(&sparse, length), hash_of(&full, length));
        assert_eq!(hash_of(&sparse, length), hash_of_bytes(&bytes));
        assert!(data_length(&sparse, length).unwrap() <= length);
        full.set_len(length + 1).unwrap();
        assert_ne!(hash_of(&full, length + 1), hash_of(&full, length));
    }
}
