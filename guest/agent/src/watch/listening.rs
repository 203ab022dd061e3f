//! The kernel's word that a program called `listen`.
//!
//! Linux announces no listening socket: `sock_diag` broadcasts only the ends of sockets, and
//! `/proc/net` cannot be polled. But it has a trace event for the return of each system call, and
//! one of them is `listen`, whatever the family: TCP, vsock or Unix. `perf_event_open` opens it for
//! every processor, and the descriptors poll as readable when it happened. It costs nothing until
//! a wait begins, and then little: one page a processor, and a few instructions a system call.

use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::ptr;

use crate::{mounts, sys};

/// Where trace events are described.
const EVENTS: &str = "/sys/kernel/tracing/events/syscalls/sys_exit_listen/id";
/// Which processors run, as ranges.
const PROCESSORS: &str = "/sys/devices/system/cpu/online";
/// `PERF_TYPE_TRACEPOINT` of `linux/perf_event.h`.
const TRACEPOINT: u32 = 2;
/// `PERF_FLAG_FD_CLOEXEC` of `linux/perf_event.h`.
const CLOSE_ON_EXEC: libc::c_ulong = 8;

/// `struct perf_event_attr` as of its first version (`PERF_ATTR_SIZE_VER0`).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    breakpoint_address: u64,
}

/// The event, open on every processor.
#[derive(Debug)]
pub(super) struct Listening(Vec<Counter>);

impl Listening {
    /// Opens it.
    ///
    /// # Errors
    /// Where the kernel was built without trace events, or forbids them.
    pub(super) fn open() -> io::Result<Self> {
        let path = Path::new(EVENTS);
        if !path.exists() {
            mounts::mount_tracing()?;
        }
        let event = fs::read_to_string(path)?;
        let event = event.trim().parse().map_err(io::Error::other)?;
        let online = fs::read_to_string(PROCESSORS)?;
        processors(online.trim()).map(|processor| Counter::open(event, processor)).collect()
    }

    /// What becomes readable when somebody has called `listen`.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.0.iter().map(|counter| counter.event.as_raw_fd())
    }
}

impl FromIterator<Counter> for Listening {
    fn from_iter<T: IntoIterator<Item = Counter>>(counters: T) -> Self {
        Self(counters.into_iter().collect())
    }
}

/// The numbers in text such as `0-3,5`.
fn processors(ranges: &str) -> impl Iterator<Item = libc::c_int> {
    ranges
        .split(',')
        .filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse().ok()?..=last.parse().ok()?)
        })
        .flatten()
}

/// The event on one processor.
#[derive(Debug)]
struct Counter {
    event: OwnedFd,
    /// The event's buffer. Nobody reads it: without one, the descriptor would not poll.
    buffer: *mut libc::c_void,
}

// SAFETY: the mapping is not accessed, only unmapped, and belongs to no thread.
unsafe impl Send for Counter {}

impl Counter {
    fn open(event: u64, processor: libc::c_int) -> io::Result<Self> {
        let attributes = Attributes {
            kind: TRACEPOINT,
            size: u32::try_from(mem::size_of::<Attributes>()).unwrap_or_default(),
            config: event,
            sample_period: 1,
            wakeup_events: 1,
            ..Attributes::default()
        };
        // SAFETY: `attributes` is as long as its `size` says and outlives the call; −1 stands for
        // every process, and for no group.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                -1,
                processor,
                -1,
                CLOSE_ON_EXEC,
            )
        };
        let event = sys::owned(libc::c_int::try_from(fd).unwrap_or(-1))?;
        // Read-only, so that the kernel overwrites what is old.
        // SAFETY: a new mapping at an address of the kernel's choice.
        let buffer = unsafe {
            libc::mmap(
                ptr::null_mut(),
                buffer_length(),
                libc::PROT_READ,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                0,
            )
        };
        if buffer == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { event, buffer })
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // SAFETY: the mapping of this length was made by `open`, and nothing points into it.
        unsafe { libc::munmap(self.buffer, buffer_length()) };
    }
}

/// One page for the kernel's notes and one for events.
fn buffer_length() -> usize {
    // SAFETY: takes an integer.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    2 * usize::try_from(page).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_processors_are_read() {
        assert_eq!(processors("0").collect::<Vec<_>>(), [0]);
        assert_eq!(processors("0-2,5,7-8").collect::<Vec<_>>(), [0, 1, 2, 5, 7, 8]);
        assert_eq!(processors("").count(), 0);
    }
}
