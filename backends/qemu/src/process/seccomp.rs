//! Hears the vhost calls of a QEMU process.
//!
//! QEMU drives a vhost device by ioctls on a file descriptor. The kernel would answer them through
//! `/dev/vhost-vsock`, which hosts without the module, containers and most CI machines lack. Here a
//! seccomp filter hands exactly these ioctls to this process instead (`seccomp_unotify(2)`); nothing
//! else that QEMU does is touched. It needs no privilege.

#![allow(clippy::cast_possible_truncation, reason = "codes and numbers of few bits in wider types")]

use std::io::{self, IoSlice};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// The type of all vhost ioctls (`VHOST_VIRTIO` in linux/vhost.h).
const VHOST_TYPE: u32 = 0xaf;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const fn instruction(code: u16, jump_true: u8, jump_false: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: jump_true, jf: jump_false, k }
}

/// Hands `ioctl` with a request of vhost's type to the listener and allows everything else.
/// Offsets are those of `struct seccomp_data`; the filter is no fence, only an ear.
static FILTER: [libc::sock_filter; 7] = [
    instruction(LOAD, 0, 0, 0),
    instruction(JUMP_EQUAL, 0, 4, libc::SYS_ioctl as u32),
    // The low half of the second argument.
    instruction(LOAD, 0, 0, 24),
    instruction(AND, 0, 0, 0xff00),
    instruction(JUMP_EQUAL, 0, 1, VHOST_TYPE << 8),
    instruction(RETURN, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
    instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
];

/// Puts the filter on the calling thread and sends its listener through `socket`. For a child
/// between `fork` and `exec`: allocates nothing and takes no lock.
pub(super) fn install(socket: BorrowedFd<'_>) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let program = libc::sock_fprog { len: FILTER.len() as u16, filter: FILTER.as_ptr().cast_mut() };
    // SAFETY: `program` and the filter behind it outlive the call, which only reads them.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    let listener = i32::try_from(listener).map_err(io::Error::other)?;
    if listener < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above made this descriptor, and nobody else owns it.
    let listener = unsafe { OwnedFd::from_raw_fd(listener) };
    let descriptors = [std::os::fd::AsFd::as_fd(&listener)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(socket, &[IoSlice::new(b"l")], &mut control, SendFlags::empty())?;
    Ok(())
}

/// One ioctl that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    id: u64,
    /// The request.
    pub(crate) request: u32,
    /// Its argument: an address in the caller's memory.
    pub(crate) argument: u64,
}

/// The listening end of a filter.
#[derive(Debug)]
pub(crate) struct Listener(pub(super) OwnedFd);

impl Listener {
    /// The next call; none when the caller has died meanwhile.
    pub(crate) fn receive(&self) -> io::Result<Option<Call>> {
        // SAFETY: all fields are numbers, for which zero is valid; the kernel wants zeroes.
        let mut notification: libc::seccomp_notif = unsafe { mem::zeroed() };
        // SAFETY: the request writes one `seccomp_notif` behind the pointer.
        let received = unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notification)
        };
        if received < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ENOENT | libc::EINTR) => Ok(None),
                _ => Err(error),
            };
        }
        let [_, request, argument, ..] = notification.data.args;
        let request = (request & u64::from(u32::MAX)) as u32;
        Ok(Some(Call { id: notification.id, request, argument }))
    }

    /// Lets the caller go on with this result. A caller that has died wants none.
    pub(crate) fn answer(&self, call: Call, result: Result<(), i32>) -> io::Result<()> {
        let mut response = libc::seccomp_notif_resp {
            id: call.id,
            val: 0,
            error: result.err().map_or(0, |errno| -errno),
            flags: 0,
        };
        // SAFETY: the request reads one `seccomp_notif_resp` behind the pointer.
        let sent = unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response)
        };
        if sent < 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::ENOENT) {
                return Err(error);
            }
        }
        Ok(())
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}
