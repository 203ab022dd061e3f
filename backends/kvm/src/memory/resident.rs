//! How much of a machine's memory is resident on the host.

use std::ops::Range;

use vmoon_core::Bytes;

/// The resident bytes of the mappings inside `range`, from `/proc/self/smaps`.
pub(crate) fn resident(range: &Range<usize>) -> std::io::Result<Bytes> {
    let text = std::fs::read_to_string("/proc/self/smaps")?;
    let mut inside = false;
    let mut kib = 0;
    for line in text.lines() {
        if let Some(addresses) = parse_header(line) {
            inside = range.start <= addresses.start && addresses.end <= range.end;
        } else if inside && let Some(rest) = line.strip_prefix("Rss:") {
            kib += rest.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0);
        }
    }
    Ok(Bytes::kib(kib))
}

/// The addresses of a line that begins a mapping.
fn parse_header(line: &str) -> Option<Range<usize>> {
    let (addresses, _) = line.split_once(' ')?;
    let (start, end) = addresses.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::ram::Ram;

    #[test]
    fn only_touched_pages_are_resident() {
        let ram = Ram::new(16 << 20).unwrap();
        let before = resident(&ram.host_range()).unwrap();
        // SAFETY: a page of our own that nobody else knows.
        unsafe { ram.page(7).write_bytes(1, 4096) };
        assert_eq!((before, resident(&ram.host_range()).unwrap()), (Bytes(0), Bytes::PAGE));
    }
}
