//! A disk that the guest reads and writes.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use vmoon_core::disk::DiskContents;

use super::contents::{CLUSTER, Contents, piece};
use super::image::{Image, SECTOR};
use super::overlay::{CLUSTER_SIZE, Overlay};

/// A disk. Offsets and lengths have been checked against its size by the caller.
#[derive(Debug)]
pub(super) struct Disk {
    contents: Contents,
    readonly: bool,
}

impl Disk {
    pub(super) fn new(image: Image, overlay: Option<Overlay>, readonly: bool) -> Self {
        Self { contents: Contents { image: Arc::new(image), overlay }, readonly }
    }

    pub(super) fn sectors(&self) -> u64 {
        self.image().length() / SECTOR
    }

    pub(super) fn image(&self) -> &Arc<Image> {
        &self.contents.image
    }

    pub(super) const fn is_readonly(&self) -> bool {
        self.readonly
    }

    pub(super) const fn overlay(&self) -> Option<&Overlay> {
        self.contents.overlay.as_ref()
    }

    pub(super) fn set_overlay(&mut self, overlay: Option<Overlay>) {
        self.contents.overlay = overlay;
    }

    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.contents.read(offset, bytes)
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let Contents { image, overlay } = &mut self.contents;
        let Some(overlay) = overlay else { return image.write(offset, bytes) };
        let mut offset = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (index, within, count) = piece(offset, rest.len());
            let (now, later) = rest.split_at(count);
            let cluster = overlay.get_mut(index, |cluster| {
                if count == CLUSTER_SIZE {
                    return Ok(());
                }
                // The image may end within its last cluster.
                let start = index * CLUSTER;
                let present = usize::try_from(image.length() - start).unwrap_or(usize::MAX);
                image.read(start, &mut cluster[..present.min(CLUSTER_SIZE)])
            })?;
            cluster[within..within + count].copy_from_slice(now);
            offset += count as u64;
            rest = later;
        }
        Ok(())
    }

    /// Gives back the room of a range whose contents the guest does not need. Above an image, what
    /// is beneath shows again: the guest may read anything there.
    pub(super) fn discard(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let Contents { image, overlay } = &mut self.contents;
        let Some(overlay) = overlay else { return image.discard(offset, length) };
        for index in whole_clusters(image, offset, length) {
            overlay.remove(index);
        }
        Ok(())
    }

    /// Makes a range read as zeroes.
    pub(super) fn write_zeroes(&mut self, offset: u64, length: u64) -> io::Result<()> {
        const ZEROES: [u8; CLUSTER_SIZE] = [0; CLUSTER_SIZE];
        let Contents { image, overlay } = &mut self.contents;
        let Some(overlay) = overlay else { return image.write_zeroes(offset, length) };
        let whole = whole_clusters(image, offset, length);
        for index in whole.clone() {
            overlay.zero(index);
        }
        let (mut position, end) = (offset, offset + length);
        while position < end {
            if whole.contains(&(position / CLUSTER)) {
                position = end.min(whole.end * CLUSTER);
                continue;
            }
            let (_, _, count) =
                piece(position, usize::try_from(end - position).unwrap_or(CLUSTER_SIZE));
            self.write(position, &ZEROES[..count])?;
            position += count as u64;
        }
        Ok(())
    }

    /// Makes what was written last. An overlay is memory: it lasts as long as the machine, and
    /// nothing could make it last longer.
    pub(super) fn flush(&self) -> io::Result<()> {
        if self.overlay().is_some() || self.readonly { Ok(()) } else { self.image().flush() }
    }
}

/// The clusters of which a range leaves nothing out; the last one of the image may be shorter.
fn whole_clusters(image: &Image, offset: u64, length: u64) -> Range<u64> {
    let end = offset + length;
    let last = if end == image.length() { end.div_ceil(CLUSTER) } else { end / CLUSTER };
    let first = offset.div_ceil(CLUSTER);
    first..last.max(first)
}
