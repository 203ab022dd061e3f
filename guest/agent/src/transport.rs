//! How the agent and the host reach each other.

use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use vmoon_protocol::AGENT_PORT;

use crate::{readiness, sys};

/// What connections run over.
#[derive(Debug)]
pub(crate) enum Transport {
    /// vsock, to the host.
    Vsock,
    /// Unix sockets in this directory: `host.sock` is the host's port, `guest.sock` the agent's.
    /// For tests, and for work on the agent without a machine.
    Unix(PathBuf),
}

impl Transport {
    /// Listens for command connections.
    pub(crate) fn listen(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Vsock => vsock_listen(AGENT_PORT),
            Self::Unix(directory) => {
                let path = directory.join("guest.sock");
                // A socket left by an agent that ended would make the address taken.
                let _ = fs::remove_file(&path);
                UnixListener::bind(path).map(OwnedFd::from)
            }
        }
    }

    /// The directory of the names that the guest declares.
    pub(crate) fn readiness(&self) -> PathBuf {
        match self {
            Self::Vsock => PathBuf::from(readiness::DIRECTORY),
            Self::Unix(directory) => directory.join("ready"),
        }
    }

    /// Opens the control connection.
    pub(crate) fn dial(&self) -> io::Result<File> {
        match self {
            Self::Vsock => vsock_connect(libc::VMADDR_CID_HOST, AGENT_PORT),
            Self::Unix(directory) => {
                UnixStream::connect(directory.join("host.sock")).map(OwnedFd::from)
            }
        }
        .map(File::from)
    }
}

/// How many connections wait to be accepted: a host may start hundreds of commands at once, and one
/// beyond this is refused. The kernel's own limit (`net.core.somaxconn`) is as high.
const BACKLOG: i32 = 4096;

/// The next connection to a listening socket.
pub(crate) fn accept(listener: &OwnedFd) -> io::Result<File> {
    sys::retry(|| {
        // SAFETY: the kernel may be given null for the address that nobody asks for.
        sys::owned(unsafe {
            libc::accept4(
                listener.as_raw_fd(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                libc::SOCK_CLOEXEC,
            )
        })
    })
    .map(File::from)
}

/// Listens on a vsock port for connections from the host.
pub(crate) fn vsock_listen(port: u32) -> io::Result<OwnedFd> {
    let socket = vsock_socket()?;
    let address = vsock_address(libc::VMADDR_CID_ANY, port);
    // SAFETY: `address` is a whole `sockaddr_vm`, of the length given, and outlives the call.
    sys::check(unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_LEN)
    })?;
    // SAFETY: `listen` takes two integers.
    sys::check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    Ok(socket)
}

/// Connects to a vsock port.
pub(crate) fn vsock_connect(cid: u32, port: u32) -> io::Result<OwnedFd> {
    let socket = vsock_socket()?;
    let address = vsock_address(cid, port);
    sys::retry(|| {
        // SAFETY: as in `vsock_listen`.
        sys::check(unsafe {
            libc::connect(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_LEN)
        })
    })?;
    Ok(socket)
}

#[allow(clippy::cast_possible_truncation, reason = "16 bytes")]
const ADDRESS_LEN: libc::socklen_t = mem::size_of::<libc::sockaddr_vm>() as libc::socklen_t;

fn vsock_socket() -> io::Result<OwnedFd> {
    // SAFETY: `socket` takes integers and returns a new descriptor.
    sys::owned(unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })
}

fn vsock_address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: a `sockaddr_vm` is plain integers, for which zero is valid.
    let mut address: libc::sockaddr_vm = unsafe { mem::zeroed() };
    #[allow(clippy::cast_possible_truncation, reason = "address families are below 50")]
    {
        address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    }
    address.svm_cid = cid;
    address.svm_port = port;
    address
}
