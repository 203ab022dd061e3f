//! What the guest sees as its disk: an image, and what was written above it.

use std::io;

use super::image::{Image, SECTOR};
use super::overlay::{CLUSTER_SIZE, Overlay};

const CLUSTER: u64 = CLUSTER_SIZE as u64;

/// A disk. Offsets and lengths have been checked against its size by the caller.
#[derive(Debug)]
pub(super) struct Disk {
    image: Image,
    overlay: Option<Overlay>,
    readonly: bool,
}

impl Disk {
    pub(super) const fn new(image: Image, overlay: Option<Overlay>, readonly: bool) -> Self {
        Self { image, overlay, readonly }
    }

    pub(super) const fn sectors(&self) -> u64 {
        self.image.length() / SECTOR
    }

    pub(super) const fn image(&self) -> &Image {
        &self.image
    }

    pub(super) const fn is_readonly(&self) -> bool {
        self.readonly
    }

    pub(super) const fn overlay(&self) -> Option<&Overlay> {
        self.overlay.as_ref()
    }

    pub(super) fn set_overlay(&mut self, overlay: Option<Overlay>) {
        self.overlay = overlay;
    }

    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let Some(overlay) = self.overlay.as_ref().filter(|overlay| !overlay.is_empty()) else {
            return self.image.read(offset, bytes);
        };
        let mut offset = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (index, within, count) = piece(offset, rest.len());
            let (now, later) = rest.split_at_mut(count);
            match overlay.get(index) {
                Some(cluster) => now.copy_from_slice(&cluster[within..within + count]),
                None => self.image.read(offset, now)?,
            }
            offset += count as u64;
            rest = later;
        }
        Ok(())
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let Some(overlay) = &mut self.overlay else { return self.image.write(offset, bytes) };
        let mut offset = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (index, within, count) = piece(offset, rest.len());
            let (now, later) = rest.split_at(count);
            let image = &self.image;
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

    /// Makes what was written last. An overlay lasts as long as the machine, no longer.
    pub(super) fn flush(&self) -> io::Result<()> {
        if self.overlay.is_some() || self.readonly { Ok(()) } else { self.image.flush() }
    }
}

/// The part of a range that lies in its first cluster: the cluster's index, where the part begins
/// in it, and its length.
fn piece(offset: u64, length: usize) -> (u64, usize, usize) {
    // Below the size of a cluster.
    let within = usize::try_from(offset % CLUSTER).unwrap_or(0);
    (offset / CLUSTER, within, length.min(CLUSTER_SIZE - within))
}
