//! Thin, safe wrappers around the system calls that the standard library lacks.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use libc::c_int;

/// Turns the C convention (−1 and `errno`) into a result.
pub(crate) fn check(result: c_int) -> io::Result<c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Like [`check`], for a call that returns a new descriptor.
pub(crate) fn owned(result: c_int) -> io::Result<OwnedFd> {
    // SAFETY: a call that makes a descriptor returned it, so that it is open and nobody else's.
    check(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Repeats a call for as long as a signal interrupts it.
pub(crate) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Keeps the allocator to one arena. An arena for each thread would spread the few bytes that
/// the agent uses over more pages, and each page that a command dirties is one to restore.
pub(crate) fn keep_one_arena() {
    // musl, for which the agent is built elsewhere, has one heap anyway.
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` takes two integers and is called before any other thread exists.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}

/// How many descriptors the agent may have: five for each command that runs, and hundreds of those
/// are more than the 1024 that a process begins with. Not as many as the kernel allows, for
/// commands inherit the limit, and some programs look at each number below it.
const DESCRIPTORS: libc::rlim_t = 4096;

/// Lifts the limit of open descriptors to [`DESCRIPTORS`], as far as the kernel lets it.
pub(crate) fn lift_descriptor_limit() -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a whole `rlimit` that outlives the call, which writes it.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_cur.max(DESCRIPTORS.min(limit.rlim_max));
    // SAFETY: as above; the call only reads it.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }).map(drop)
}

/// An entry for [`poll`]; a descriptor of `None` never becomes ready.
pub(crate) fn entry(fd: Option<&impl AsRawFd>, events: i16) -> libc::pollfd {
    libc::pollfd { fd: fd.map_or(-1, AsRawFd::as_raw_fd), events, revents: 0 }
}

/// Waits until a descriptor is ready or the time is over; returns how many are ready.
pub(crate) fn poll(entries: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    let timeout = timeout.map(timespec);
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    let count = entries.len() as libc::nfds_t;
    // SAFETY: `entries` is `count` initialised entries that the kernel writes `revents` of;
    // `timeout` is null or points to a value that outlives the call; a null mask is allowed.
    let ready = unsafe { libc::ppoll(entries.as_mut_ptr(), count, timeout, ptr::null()) };
    match check(ready) {
        Ok(ready) => Ok(usize::try_from(ready).unwrap_or(0)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            for entry in entries {
                entry.revents = 0;
            }
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

/// The C form of a duration.
pub(crate) fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: libc::c_long::from(duration.subsec_nanos()),
    }
}

/// Makes reads and writes fail with `WouldBlock` rather than wait.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: `fd` is borrowed and so open; these commands take and return integers only.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    Ok(())
}

/// How many bytes can be read from a pipe at once.
pub(crate) fn readable_bytes(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: c_int = 0;
    // SAFETY: FIONREAD writes one integer, to `count`, which outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// A descriptor that becomes readable when the process ends (Linux 5.3).
pub(crate) fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: `pidfd_open` takes two integers and returns a new descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
    owned(c_int::try_from(fd).unwrap_or(-1))
}

/// Signals a process group.
pub(crate) fn kill_group(group: u32, signal: c_int) -> io::Result<()> {
    let group = libc::pid_t::try_from(group).map_err(io::Error::other)?;
    // SAFETY: `kill` takes two integers.
    check(unsafe { libc::kill(-group, signal) }).map(drop)
}

/// A counter that wakes a poll.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: `eventfd` takes two integers and returns a new descriptor.
    owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
}

/// Makes an [`eventfd`] readable.
pub(crate) fn raise(event: &OwnedFd) {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: `one` is eight readable bytes. A failure means that it is readable already.
    unsafe { libc::write(event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

/// Writes all dirty pages of all file systems to their devices.
pub(crate) fn sync() {
    // SAFETY: `sync` takes nothing and cannot fail.
    unsafe { libc::sync() };
}

/// Loads a kernel module. `compressed` lets the kernel decompress the file (Linux 5.17).
pub(crate) fn load_module(file: RawFd, compressed: bool) -> io::Result<()> {
    /// `MODULE_INIT_COMPRESSED_FILE` of linux/module.h.
    const COMPRESSED_FILE: c_int = 4;
    let parameters: &CStr = c"";
    let flags = if compressed { COMPRESSED_FILE } else { 0 };
    // SAFETY: `parameters` is a C string that outlives the call; the rest are integers.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file, parameters.as_ptr(), flags) };
    check(c_int::try_from(result).unwrap_or(-1)).map(drop)
}
