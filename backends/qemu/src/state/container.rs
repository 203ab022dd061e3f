//! A qcow2 image in memory that holds the state of processors and devices, as QEMU saved it.
//!
//! QEMU keeps a machine's state in a snapshot inside of a disk image. These images have no disk
//! to speak of; they are the only ones whose snapshots it is asked for. RAM is left out of them:
//! it is shared with this process, which keeps it better.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{MemfdFlags, memfd_create};

use vmoon_core::Cid;

use super::section;

/// The snapshot's name inside of the image.
pub(crate) const TAG: &str = "state";

/// log2 of the size of a cluster.
const CLUSTER_BITS: u32 = 12;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Bytes of the disk that is not used.
const DISK: u64 = 1 << 20;

/// The image of one snapshot.
#[derive(Debug)]
pub(crate) struct Container(File);

impl Container {
    /// An image without a snapshot (QEMU's docs/interop/qcow2.txt): header, refcount table,
    /// refcount block and first-level table, a cluster each.
    pub(crate) fn empty() -> io::Result<Self> {
        let mut header = b"QFI\xfb".to_vec();
        let word = |header: &mut Vec<u8>, value: u32| header.extend(value.to_be_bytes());
        let long = |header: &mut Vec<u8>, value: u64| header.extend(value.to_be_bytes());
        word(&mut header, 3); // version
        long(&mut header, 0); // no backing file
        word(&mut header, 0);
        word(&mut header, CLUSTER_BITS);
        long(&mut header, DISK);
        word(&mut header, 0); // not encrypted
        word(&mut header, 1); // entries of the first-level table
        long(&mut header, 3 * CLUSTER);
        long(&mut header, CLUSTER); // refcount table
        word(&mut header, 1);
        word(&mut header, 0); // snapshots
        long(&mut header, 0);
        (0..3).for_each(|_| long(&mut header, 0)); // features
        word(&mut header, 4); // refcounts have 2^4 bits
        word(&mut header, 104); // length of this header
        let file = Self::file()?;
        file.write_all_at(&header, 0)?;
        file.write_all_at(&(2 * CLUSTER).to_be_bytes(), CLUSTER)?;
        let used = [1_u16.to_be_bytes(); 4].concat();
        file.write_all_at(&used, 2 * CLUSTER)?;
        file.set_len(4 * CLUSTER)?;
        Ok(Self(file))
    }

    /// An image with these bytes.
    pub(crate) fn of_bytes(bytes: &[u8]) -> io::Result<Self> {
        let file = Self::file()?;
        file.write_all_at(bytes, 0)?;
        Ok(Self(file))
    }

    /// The same in a file of its own.
    pub(crate) fn copy(&self) -> io::Result<Self> {
        Self::of_bytes(&self.bytes()?)
    }

    fn file() -> io::Result<File> {
        Ok(File::from(memfd_create("qemu-state", MemfdFlags::CLOEXEC)?))
    }

    /// A path by which QEMU, a child of this process, opens it.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.0.metadata()?.len()).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.0.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Bytes that the host holds for it.
    pub(crate) fn resident(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.blocks() * 512)
    }

    /// Makes what QEMU has just saved of a guest that knows itself by `cid` loadable without loss:
    /// see [`section`].
    pub(crate) fn keep_connections(&self, cid: Cid) -> io::Result<()> {
        let bytes = self.bytes()?;
        let position = section::event_ring(&bytes, cid.0)?;
        self.0.write_all_at(&[0; 8], position as u64)
    }
}
