//! What the guest sees: an image, and what was written above it.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use vmoon_core::disk::DiskContents;
use vmoon_core::disk::extents::append;
use vmoon_core::error::{Code, Error, Result};
use vmoon_core::spec::Disk as DiskSpec;

use super::image::{Image, SECTOR};
use super::overlay::{CLUSTER_SIZE, Overlay};
use super::state::BlockState;

pub(super) const CLUSTER: u64 = CLUSTER_SIZE as u64;

/// An image under an overlay. Offsets and lengths have been checked against its size by the
/// caller.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    pub(super) image: Arc<Image>,
    pub(super) overlay: Option<Overlay>,
}

impl DiskContents for Contents {
    fn length(&self) -> u64 {
        self.image.length()
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
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

    fn data(&self) -> io::Result<Vec<Range<u64>>> {
        let mut ranges = self.image.data()?;
        let Some(overlay) = &self.overlay else { return Ok(ranges) };
        let length = self.length();
        overlay.for_each(|index, _| {
            let start = index * CLUSTER;
            ranges.push(start..(start + CLUSTER).min(length));
            Ok::<_, io::Error>(())
        })?;
        ranges.sort_unstable_by_key(|range| range.start);
        let mut united = Vec::new();
        for range in ranges {
            append(&mut united, range);
        }
        Ok(united)
    }
}

/// The part of a range that lies in its first cluster: the cluster's index, where the part begins
/// in it, and its length.
pub(super) fn piece(offset: u64, length: usize) -> (u64, usize, usize) {
    // Below the size of a cluster.
    let within = usize::try_from(offset % CLUSTER).unwrap_or(0);
    (offset / CLUSTER, within, length.min(CLUSTER_SIZE - within))
}

/// The host's end of a block device: what is on the disk in a given state of the device.
#[derive(Clone, Debug)]
pub struct BlockHost {
    pub(super) image: Arc<Image>,
}

impl BlockHost {
    /// The image of a disk without a device, to be read.
    ///
    /// # Errors
    /// `file.*` where the image cannot be opened, `vm.spec` where it is none.
    pub fn open(spec: &DiskSpec) -> Result<Self> {
        Ok(Self { image: Arc::new(Image::open(&spec.path, false)?) })
    }

    /// Holds the image for as long as anybody has the device or its contents: whoever writes to
    /// it excludes all others.
    ///
    /// # Errors
    /// `file.io` when it is in use.
    pub fn hold(&self) -> Result<()> {
        self.image.hold()
    }

    /// The disk in this state.
    ///
    /// # Errors
    /// `snapshot.incompatible` where the image has another size than the state's.
    pub fn contents(&self, state: &BlockState) -> Result<Arc<dyn DiskContents>> {
        if state.sectors != self.image.length() / SECTOR {
            let path = self.image.path().display();
            return Err(Error::new(
                Code::SnapshotIncompatible,
                format!("the disk image {path} has changed since the snapshot"),
            )
            .with_detail("path", path.to_string()));
        }
        Ok(Arc::new(Contents { image: self.image.clone(), overlay: state.overlay.clone() }))
    }
}
