//! The guest's memory statistics (virtio 1.3 section 5.5.6.3).

use vmoon_core::backend::BalloonStatistics;

use crate::ring::Cursor;

/// The length of one statistic: a tag of 16 bits and a value of 64.
const LENGTH: usize = 10;
/// The most that are read of one buffer; the standard knows ten.
const MOST: usize = 64;

/// Reads what the guest reports; tags that are not known are skipped.
pub(super) fn read(reader: &mut Cursor<'_>) -> BalloonStatistics {
    let mut statistics = BalloonStatistics::default();
    let mut bytes = [0; LENGTH];
    for _ in 0..MOST {
        if reader.read(&mut bytes) < LENGTH {
            break;
        }
        let (tag, value) = bytes.split_at(2);
        let value = value.try_into().map(u64::from_le_bytes).ok();
        let field = match u16::from_le_bytes([tag[0], tag[1]]) {
            0 => &mut statistics.swap_in,
            1 => &mut statistics.swap_out,
            2 => &mut statistics.major_faults,
            3 => &mut statistics.minor_faults,
            4 => &mut statistics.free_memory,
            5 => &mut statistics.total_memory,
            6 => &mut statistics.available_memory,
            7 => &mut statistics.disk_caches,
            8 => &mut statistics.hugetlb_allocations,
            9 => &mut statistics.hugetlb_failures,
            _ => continue,
        };
        *field = value;
    }
    statistics
}
