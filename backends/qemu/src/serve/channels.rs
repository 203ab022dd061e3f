//! The sockets between a QEMU process and this one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// This process's ends.
#[derive(Debug)]
pub(crate) struct Channels {
    /// Commands and events.
    pub(crate) monitor: UnixStream,
    /// The serial port.
    pub(crate) serial: UnixStream,
    /// The virtio console.
    pub(crate) console: UnixStream,
    /// Requests for random bytes.
    pub(crate) entropy: UnixStream,
    /// A socket for each disk.
    pub(crate) disks: Vec<UnixStream>,
}

/// QEMU's ends; closed here once it has them.
#[derive(Debug)]
pub(crate) struct Ends {
    sockets: Vec<UnixStream>,
}

impl Channels {
    /// All sockets of a machine with this many disks.
    pub(crate) fn new(disks: usize) -> io::Result<(Self, Ends)> {
        let mut sockets = Vec::new();
        let mut pair = || -> io::Result<UnixStream> {
            let (ours, theirs) = UnixStream::pair()?;
            sockets.push(theirs);
            Ok(ours)
        };
        let channels = Self {
            monitor: pair()?,
            serial: pair()?,
            console: pair()?,
            entropy: pair()?,
            disks: (0..disks).map(|_| pair()).collect::<io::Result<_>>()?,
        };
        Ok((channels, Ends { sockets }))
    }
}

impl Ends {
    /// The descriptors that QEMU inherits.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd)
    }

    fn number(&self, index: usize) -> i32 {
        self.sockets[index].as_raw_fd()
    }

    pub(crate) fn monitor(&self) -> i32 {
        self.number(0)
    }

    pub(crate) fn serial(&self) -> i32 {
        self.number(1)
    }

    pub(crate) fn console(&self) -> i32 {
        self.number(2)
    }

    pub(crate) fn entropy(&self) -> i32 {
        self.number(3)
    }

    pub(crate) fn disk(&self, index: usize) -> i32 {
        self.number(4 + index)
    }
}
