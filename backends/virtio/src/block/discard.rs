//! Requests to discard sectors and to write zeroes to them (virtio 1.3 section 5.2.6).

use super::image::SECTOR;

/// `VIRTIO_BLK_F_DISCARD` and `VIRTIO_BLK_F_WRITE_ZEROES`.
pub(super) const FEATURES: u64 = 1 << 13 | 1 << 14;

/// The most sectors of one request: 64 MiB, which an overlay looks through in about a millisecond.
pub(super) const MAX_SECTORS: u32 = 1 << 17;

/// The length of `struct virtio_blk_discard_write_zeroes`, of which a request has one.
pub(super) const SEGMENT: usize = 16;

/// The flag that lets zeroes be written by taking the room away.
const UNMAP: u32 = 1;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The guest does not need the contents any more.
    Discard,
    /// The guest wants to read zeroes.
    WriteZeroes,
}

/// A range of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    /// The first sector.
    pub(super) sector: u64,
    /// The length in bytes.
    pub(super) length: u64,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It has a flag that the device does not know, or not for this kind.
    Unsupported,
    /// It is larger than the device said.
    TooLarge,
}

/// Reads the segment of a request.
pub(super) fn parse(kind: Kind, segment: &[u8; SEGMENT]) -> Result<Range, Refusal> {
    let sector = u64::from_le_bytes(std::array::from_fn(|at| segment[at]));
    let half = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| segment[at + byte]));
    let (sectors, flags) = (half(8), half(12));
    let known = if kind == Kind::WriteZeroes { UNMAP } else { 0 };
    if flags & !known != 0 {
        return Err(Refusal::Unsupported);
    }
    if sectors > MAX_SECTORS {
        return Err(Refusal::TooLarge);
    }
    Ok(Range { sector, length: u64::from(sectors) * SECTOR })
}

/// Writes the limits into the configuration space (virtio 1.3 section 5.2.4).
pub(super) fn configure(config: &mut [u8; 60]) {
    // Largest and number of segments, for discards and for zeroes; where discards should begin.
    for (at, value) in [(36, MAX_SECTORS), (40, 1), (44, 8), (48, MAX_SECTORS), (52, 1)] {
        config[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    // Zeroes may take the room away.
    config[56] = 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(sector: u64, sectors: u32, flags: u32) -> [u8; SEGMENT] {
        let mut bytes = [0; SEGMENT];
        bytes[..8].copy_from_slice(&sector.to_le_bytes());
        bytes[8..12].copy_from_slice(&sectors.to_le_bytes());
        bytes[12..].copy_from_slice(&flags.to_le_bytes());
        bytes
    }

    #[test]
    fn flags_and_sizes_are_checked() {
        let range = Ok(Range { sector: 5, length: 1024 });
        assert_eq!(parse(Kind::Discard, &segment(5, 2, 0)), range);
        assert_eq!(parse(Kind::WriteZeroes, &segment(5, 2, UNMAP)), range);
        assert_eq!(parse(Kind::Discard, &segment(5, 2, UNMAP)), Err(Refusal::Unsupported));
        assert_eq!(parse(Kind::WriteZeroes, &segment(5, 2, 2)), Err(Refusal::Unsupported));
        let large = segment(0, MAX_SECTORS + 1, 0);
        assert_eq!(parse(Kind::Discard, &large), Err(Refusal::TooLarge));
    }
}
