//! Unpacks the kernel inside a bzImage on the host.
//!
//! The kernel's own unpacker runs as guest code; where that is slow (a hypervisor that is itself
//! emulated) the host's copy of the same work is a fraction of it. An unpacked kernel runs at the
//! address that it was linked for and needs no relocation; it forgoes its own address
//! randomisation.

use std::io::Read;

use super::bytes::u32_at;

/// The most that a kernel may unpack to: a payload's own claim is not trusted beyond it.
const MAX_SIZE: usize = 512 << 20;
/// An lz4 block of the legacy format unpacks to at most this many bytes.
const LZ4_BLOCK: usize = 8 << 20;

/// The ELF file in a bzImage's payload, or why it cannot be had. The size that the kernel's
/// build appended must match.
pub(super) fn unpack(payload: &[u8]) -> Result<Vec<u8>, String> {
    let (packed, size) = payload
        .len()
        .checked_sub(4)
        .and_then(|end| Some((&payload[..end], usize::try_from(u32_at(payload, end)?).ok()?)))
        .ok_or("the payload is too short")?;
    if size > MAX_SIZE {
        return Err(format!("it claims to unpack to {size} bytes"));
    }
    let unpacked = if packed.starts_with(b"\x02\x21\x4c\x18") {
        lz4(&packed[4..], size)
    } else if packed.starts_with(b"\x1f\x8b") {
        // gzip's own trailer is the size; the kernel's build appends no other.
        read(flate2::read::GzDecoder::new(payload), size)
    } else if packed.starts_with(b"\x28\xb5\x2f\xfd") {
        ruzstd::decoding::StreamingDecoder::new(packed)
            .map_err(|error| error.to_string())
            .and_then(|decoder| read(decoder, size))
    } else {
        // Among others xz, which kernels use with a filter that our decoders lack.
        Err("its compression is not one that vmoon unpacks".to_owned())
    }?;
    if unpacked.len() == size {
        Ok(unpacked)
    } else {
        Err(format!("it unpacks to {} bytes instead of {size}", unpacked.len()))
    }
}

/// The legacy lz4 format: blocks, each with its packed length before it.
fn lz4(mut packed: &[u8], size: usize) -> Result<Vec<u8>, String> {
    let mut unpacked = vec![0; size];
    let mut end = 0;
    while end < size {
        let length = u32_at(packed, 0).and_then(|length| usize::try_from(length).ok());
        let block = length
            .and_then(|length| packed.get(4..length.checked_add(4)?))
            .ok_or("an lz4 block is cut off")?;
        packed = &packed[4 + block.len()..];
        let room = (size - end).min(LZ4_BLOCK);
        let written = lz4_flex::block::decompress_into(block, &mut unpacked[end..end + room])
            .map_err(|error| error.to_string())?;
        if written == 0 {
            return Err("an lz4 block is empty".to_owned());
        }
        end += written;
    }
    Ok(unpacked)
}

fn read(decoder: impl Read, size: usize) -> Result<Vec<u8>, String> {
    let mut unpacked = Vec::with_capacity(size);
    // One byte more than claimed is enough to see that the claim is wrong.
    decoder.take(size as u64 + 1).read_to_end(&mut unpacked).map_err(|error| error.to_string())?;
    Ok(unpacked)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn gzip_payload_is_unpacked_and_its_size_checked() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"kernel").unwrap();
        let mut payload = encoder.finish().unwrap();
        assert_eq!(unpack(&payload).unwrap(), b"kernel");
        let last = payload.len() - 4;
        payload[last] += 1;
        assert!(unpack(&payload).is_err());
    }

    #[test]
    fn lz4_payload_is_unpacked_block_by_block() {
        let mut payload = b"\x02\x21\x4c\x18".to_vec();
        // A block of literals only: the token's upper half is their number.
        for block in [b"\x60kernel".as_slice(), b"\x50image"] {
            payload.extend((u32::try_from(block.len()).unwrap()).to_le_bytes());
            payload.extend(block);
        }
        payload.extend(11u32.to_le_bytes());
        assert_eq!(unpack(&payload).unwrap(), b"kernelimage");
        let last = payload.len() - 4;
        payload[last] = 12;
        assert!(unpack(&payload).is_err());
    }

    #[test]
    fn absurd_sizes_are_refused() {
        assert!(unpack(b"\x1f\x8b\xff\xff\xff\xff").unwrap_err().contains("claims"));
        assert!(unpack(b"\x02").is_err());
        assert!(unpack(b"unknown\0\0\0\0").unwrap_err().contains("compression"));
    }
}
