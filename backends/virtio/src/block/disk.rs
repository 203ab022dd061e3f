//! A disk that the guest reads and writes.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use vmoon_core::disk::DiskContents;
use vmoon_core::error::Result;
use vmoon_core::spec::{Disk as DiskSpec, DiskMode};

use super::contents::{BlockHost, CLUSTER, Contents, piece};
use super::failures::Failures;
use super::image::{Image, SECTOR};
use super::overlay::{CLUSTER_SIZE, Overlay};
use super::state::BlockState;
use crate::state::STATE_VERSION;

/// A disk. Offsets and lengths have been checked against its size by the caller.
#[derive(Debug)]
pub struct Disk {
    contents: Contents,
    readonly: bool,
    failures: Failures,
}

impl Disk {
    /// Opens a disk: its image, and an overlay where writes are not to reach that.
    ///
    /// # Errors
    /// `file.*` where the image cannot be opened, `vm.spec` where it is none.
    pub fn open(spec: &DiskSpec) -> Result<Self> {
        let overlay = spec.mode == DiskMode::Overlay && !spec.readonly;
        let image = Image::open(&spec.path, spec.mode == DiskMode::Direct && !spec.readonly)?;
        let contents = Contents { image: Arc::new(image), overlay: overlay.then(Overlay::new) };
        Ok(Self { contents, readonly: spec.readonly, failures: Failures::default() })
    }

    /// The host's end.
    pub fn host(&self) -> BlockHost {
        BlockHost { image: self.image().clone() }
    }

    /// What a snapshot keeps of it, for a transport that is not of this crate.
    pub fn save(&self) -> BlockState {
        BlockState {
            version: STATE_VERSION,
            sectors: self.sectors(),
            write_through: false,
            overlay: self.overlay().cloned(),
            faults: Vec::new(),
        }
    }

    /// The size in sectors of 512 bytes.
    pub fn sectors(&self) -> u64 {
        self.image().length() / SECTOR
    }

    pub(super) fn image(&self) -> &Arc<Image> {
        &self.contents.image
    }

    /// Whether it may only be read.
    pub const fn is_readonly(&self) -> bool {
        self.readonly
    }

    /// What its image failed at.
    pub const fn failures(&self) -> &Failures {
        &self.failures
    }

    /// Where to note what its image fails at.
    pub const fn failures_mut(&mut self) -> &mut Failures {
        &mut self.failures
    }

    /// What was written above the image; none where writes go into it.
    pub const fn overlay(&self) -> Option<&Overlay> {
        self.contents.overlay.as_ref()
    }

    /// Puts back what was written above the image.
    pub fn set_overlay(&mut self, overlay: Option<Overlay>) {
        self.contents.overlay = overlay;
    }

    /// Fills `bytes` from byte `offset` on.
    ///
    /// # Errors
    /// Those of the image.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.contents.read(offset, bytes)
    }

    /// Writes `bytes` from byte `offset` on.
    ///
    /// # Errors
    /// Those of the image.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
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
    ///
    /// # Errors
    /// Those of the image.
    pub fn flush(&self) -> io::Result<()> {
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
