//! Checks an initramfs before a kernel chokes on it (Linux's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::io::Read;
use std::path::Path;

use vmoon_core::{Error, Result};

use super::bytes::{slice, u16_at, u32_at};
use super::recognise::file_error;

const NEWC_HEADER: usize = 110;

/// Checks that `bytes` are a whole initramfs: cpio archives, and perhaps a compressed one last.
pub(crate) fn check_initrd(path: &Path, bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() {
        return Err(file_error(path, format!("initrd {} is empty", path.display()))
            .with_hint("give a cpio archive in newc format, compressed or not"));
    }
    let mut rest = bytes;
    while let Some(first) = rest.iter().position(|byte| *byte != 0) {
        rest = &rest[first..];
        if !rest.starts_with(b"070701") && !rest.starts_with(b"070702") {
            return check_compressed(path, rest, rest.len() == bytes.len());
        }
        rest = skip_archive(rest).ok_or_else(|| truncated(path, bytes.len()))?;
    }
    Ok(())
}

fn truncated(path: &Path, length: usize) -> Error {
    file_error(
        path,
        format!("initrd {} is truncated: its {length} bytes end too early", path.display()),
    )
    .with_hint("copy or build the file again")
}

/// What follows an archive that ends properly.
fn skip_archive(mut archive: &[u8]) -> Option<&[u8]> {
    loop {
        let header = archive.get(..NEWC_HEADER)?;
        let field = |index: usize| {
            let digits = std::str::from_utf8(header.get(6 + index * 8..14 + index * 8)?).ok()?;
            usize::from_str_radix(digits, 16).ok()
        };
        if !header.starts_with(b"07070") {
            return None;
        }
        let (size, name_size) = (field(6)?, field(11)?);
        let name = archive.get(NEWC_HEADER..NEWC_HEADER.checked_add(name_size)?)?;
        let content = NEWC_HEADER.checked_add(name_size)?.checked_next_multiple_of(4)?;
        if name == b"TRAILER!!!\0" {
            return Some(archive.get(content..).unwrap_or_default());
        }
        let next = content.checked_add(size)?.checked_next_multiple_of(4)?;
        archive = archive.get(next..)?;
    }
}

fn check_compressed(path: &Path, bytes: &[u8], only: bool) -> Result<()> {
    let whole = if bytes.starts_with(b"\x1f\x8b") {
        let mut decoder = flate2::bufread::GzDecoder::new(bytes);
        std::io::copy(&mut decoder.by_ref(), &mut std::io::sink()).is_ok()
    } else if bytes.starts_with(b"\x28\xb5\x2f\xfd") {
        zstd_is_whole(bytes)
    } else if bytes.starts_with(b"\xfd7zXZ\0") {
        bytes.trim_ascii_end_zeros().ends_with(b"YZ")
    } else if bytes.starts_with(b"\x02\x21\x4c\x18") {
        lz4_is_whole(&bytes[4..])
    } else {
        // bzip2, lzma and lzo have no structure that is cheap to follow.
        bytes.starts_with(b"BZh")
            || bytes.starts_with(b"\x5d\0\0")
            || bytes.starts_with(b"\x89LZO")
            || return Err(unknown(path, only))
    };
    if whole { Ok(()) } else { Err(truncated(path, bytes.len())) }
}

fn unknown(path: &Path, only: bool) -> Error {
    let what = if only {
        "is not an initramfs"
    } else {
        "has something after its cpio archive that is not an initramfs"
    };
    file_error(path, format!("initrd {} {what}", path.display()))
        .with_hint("give a cpio archive in newc format, compressed or not")
}

trait TrimZeros {
    fn trim_ascii_end_zeros(&self) -> &[u8];
}

impl TrimZeros for [u8] {
    fn trim_ascii_end_zeros(&self) -> &[u8] {
        let end = self.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        &self[..end]
    }
}

/// Follows the blocks of a zstd frame by their headers (RFC 8878 section 3.1.1).
fn zstd_is_whole(frame: &[u8]) -> bool {
    (|| {
        let descriptor = *frame.get(4)?;
        let single_segment = descriptor & 0x20 != 0;
        let window = usize::from(!single_segment);
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let content_size = match (descriptor >> 6, single_segment) {
            (0, single) => usize::from(single),
            (1, _) => 2,
            (2, _) => 4,
            _ => 8,
        };
        let checksum = if descriptor & 4 == 0 { 0 } else { 4 };
        let mut position = 5 + window + dictionary + content_size;
        loop {
            let low = u16_at(frame, position)?;
            let high = *frame.get(position + 2)?;
            let header = u32::from(low) | u32::from(high) << 16;
            // A block of kind 1 is one byte repeated, whatever its size says.
            let size = if (header >> 1) & 3 == 1 { 1 } else { header >> 3 };
            position = position.checked_add(3)?.checked_add(usize::try_from(size).ok()?)?;
            if header & 1 != 0 {
                return Some(position + checksum <= frame.len());
            }
        }
    })()
    .unwrap_or(false)
}

/// Follows the blocks of the legacy lz4 format. Nothing marks the end: a cut between two blocks
/// is not seen.
fn lz4_is_whole(mut blocks: &[u8]) -> bool {
    while let Some(length) = u32_at(blocks, 0) {
        // Another stream may follow, or padding.
        if length == 0 || length == 0x184c_2102 {
            return true;
        }
        match slice(blocks, 4, length.into()) {
            Some(block) => blocks = &blocks[4 + block.len()..],
            None => return false,
        }
    }
    blocks.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn entry(name: &str, content: &[u8]) -> Vec<u8> {
        let mut fields = [0usize; 13];
        (fields[6], fields[11]) = (content.len(), name.len() + 1);
        let mut bytes = b"070701".to_vec();
        for field in fields {
            bytes.extend(format!("{field:08x}").bytes());
        }
        bytes.extend(name.bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn archive() -> Vec<u8> {
        [entry("init", b"#!/bin/sh\n"), entry("TRAILER!!!", b"")].concat()
    }

    fn check(bytes: &[u8]) -> Result<()> {
        check_initrd(Path::new("i"), bytes)
    }

    #[test]
    fn archives_may_follow_each_other_with_zeros_between() {
        let mut whole = archive();
        check(&whole).unwrap();
        whole.extend([0; 512]);
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&archive()).unwrap();
        let gzip = encoder.finish().unwrap();
        whole.extend(&gzip);
        check(&whole).unwrap();
        check(&gzip).unwrap();
        for length in whole.len() - gzip.len() + 2..whole.len() {
            assert!(check(&whole[..length]).unwrap_err().message().contains("truncated"));
        }
    }

    #[test]
    fn a_cut_archive_is_truncated() {
        let whole = archive();
        // The padding after the trailer's name is not needed.
        for length in 6..whole.len() - 3 {
            assert!(check(&whole[..length]).unwrap_err().message().contains("truncated"));
        }
    }

    #[test]
    fn other_files_are_refused() {
        assert!(check(b"").unwrap_err().message().contains("empty"));
        assert!(check(b"hello").unwrap_err().message().contains("not an initramfs"));
        let mut odd = archive();
        odd.extend(b"hello");
        assert!(check(&odd).unwrap_err().message().contains("after its cpio"));
    }

    #[test]
    fn zstd_frames_are_followed_to_their_last_block() {
        // Frame header with a window; two raw blocks of 4 bytes, the second one last.
        let mut frame = b"\x28\xb5\x2f\xfd\x00\x58".to_vec();
        frame.extend([0x20, 0, 0, 1, 2, 3, 4, 0x21, 0, 0, 1, 2, 3, 4]);
        check(&frame).unwrap();
        for length in 4..frame.len() {
            check(&frame[..length]).unwrap_err();
        }
    }
}
