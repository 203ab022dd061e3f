//! What a machine should be.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::units::{Bytes, Cid, MachineId};

/// The description of a machine, with every default filled in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "each is a device or feature of its own")]
pub struct MachineSpec {
    /// The name that people use; unique among the live machines of this process.
    pub name: Option<String>,
    /// Which guest to boot.
    pub guest: Guest,
    /// Appended to the command line that vmoon itself needs.
    pub cmdline: Option<String>,
    /// Number of vCPUs, from 1.
    pub cpus: u32,
    /// Size of RAM, a multiple of the page size.
    pub memory: Bytes,
    /// Block devices, in order: the first is `/dev/vda`.
    pub disks: Vec<Disk>,
    /// Whether the first of `disks` holds the root file system of a Linux guest.
    #[serde(default)]
    pub root: bool,
    /// Shared directories.
    pub shares: Vec<Share>,
    /// A network interface.
    pub net: bool,
    /// A vsock device, and its CID when it must be a given one.
    pub vsock: Option<VsockSpec>,
    /// A memory balloon.
    pub balloon: bool,
    /// An entropy device.
    pub entropy: bool,
    /// Rosetta translation of x86-64 binaries in an arm64 guest.
    pub rosetta: bool,
    /// Whether the guest runs vmoon's agent.
    pub agent: bool,
    /// What `boot` waits for.
    pub ready: Ready,
    /// How long `boot` waits.
    pub timeout: Duration,
}

impl Default for MachineSpec {
    fn default() -> Self {
        Self {
            name: None,
            guest: Guest::Micro,
            cmdline: None,
            cpus: 1,
            memory: Bytes::mib(256),
            disks: Vec::new(),
            root: false,
            shares: Vec::new(),
            net: false,
            vsock: Some(VsockSpec::default()),
            balloon: true,
            entropy: true,
            rosetta: false,
            agent: true,
            ready: Ready::Agent,
            timeout: Duration::from_secs(30),
        }
    }
}

impl MachineSpec {
    /// The place in `disks`, and the disk, that people call by this number: the root is 0, all
    /// others count from 1.
    pub fn disk(&self, number: usize) -> Option<(usize, &Disk)> {
        let index = number.checked_sub(self.disk_numbers().start)?;
        Some((index, self.disks.get(index)?))
    }

    /// The numbers by which people call the disks.
    pub fn disk_numbers(&self) -> std::ops::Range<usize> {
        let first = usize::from(!self.root);
        first..self.disks.len() + first
    }

    /// Every path of the host's in it.
    pub(crate) fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let guest = match &mut self.guest {
            Guest::Micro => [None, None],
            Guest::Linux { kernel, initrd } => [kernel.as_mut(), initrd.as_mut()],
            Guest::Kernel { kernel, initrd } => [Some(kernel), initrd.as_mut()],
        };
        let disks = self.disks.iter_mut().map(|disk| &mut disk.path);
        let shares = self.shares.iter_mut().map(|share| &mut share.path);
        guest.into_iter().flatten().chain(disks).chain(shares)
    }
}

/// Which guest to boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Guest {
    /// The guest built into vmoon.
    Micro,
    /// A Linux that vmoon assembles: kernel, modules and agent.
    Linux {
        /// The kernel; found on the host when absent.
        kernel: Option<PathBuf>,
        /// The user's initramfs, which replaces the assembled one.
        initrd: Option<PathBuf>,
    },
    /// A kernel and perhaps an initramfs of the user's, booted as they are.
    Kernel {
        /// A bzImage or an ELF file.
        kernel: PathBuf,
        /// An initramfs.
        initrd: Option<PathBuf>,
    },
}

/// A block device backed by a raw image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// The image.
    pub path: PathBuf,
    /// Whether the guest may only read.
    pub readonly: bool,
    /// Where writes go.
    pub mode: DiskMode,
}

/// Where a disk's writes go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskMode {
    /// Into memory, above an image that stays as it is; part of every snapshot.
    #[default]
    Overlay,
    /// Into the image itself; a snapshot does not cover them.
    Direct,
}

/// A directory of the host that the guest can mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The directory.
    pub path: PathBuf,
    /// The tag by which the guest mounts it.
    pub tag: String,
    /// Whether the guest may only read.
    pub readonly: bool,
}

/// What is asked of the vsock device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockSpec {
    /// The guest's CID; chosen freely when absent.
    pub cid: Option<Cid>,
}

/// What `boot` waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ready {
    /// The agent's announcement.
    Agent,
    /// Text on the console that matches this Lua pattern.
    Console(String),
    /// Nothing: `boot` returns once the vCPUs run.
    Nothing,
}

/// What tells one machine from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The machine's id.
    pub id: MachineId,
    /// Its name.
    pub name: String,
    /// Its CID.
    pub cid: Cid,
    /// Its locally administered MAC address, derived from the id.
    pub mac: [u8; 6],
}

/// The files of a guest, found, checked and read: what a backend boots.
#[derive(Clone, Debug)]
pub struct BootSource {
    /// The kernel's bytes: a bzImage or an ELF file.
    pub kernel: Image,
    /// The initramfs, if any.
    pub initrd: Option<Image>,
    /// The whole command line but for what only the backend knows (its devices).
    pub cmdline: String,
}

/// The bytes of a kernel or an initramfs, shared rather than copied.
#[derive(Clone)]
pub struct Image {
    bytes: ImageBytes,
    origin: PathBuf,
}

#[derive(Clone)]
enum ImageBytes {
    Embedded(&'static [u8]),
    Read(Arc<[u8]>),
}

impl Image {
    /// An image that is part of this program.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Self {
        Self { bytes: ImageBytes::Embedded(bytes), origin: PathBuf::from(name) }
    }

    /// An image read from `origin` or assembled under that name.
    pub fn read(origin: impl Into<PathBuf>, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { bytes: ImageBytes::Read(bytes.into()), origin: origin.into() }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            ImageBytes::Embedded(bytes) => bytes,
            ImageBytes::Read(bytes) => bytes,
        }
    }

    /// Where the bytes come from, for messages.
    pub fn origin(&self) -> &std::path::Path {
        &self.origin
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("origin", &self.origin)
            .field("len", &self.bytes().len())
            .finish_non_exhaustive()
    }
}
