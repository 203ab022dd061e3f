//! The kernel's word that something on the way to a path changed.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::places::{self, Walk};
use super::wait::{OFTEN, RARELY};
use crate::sys;

/// What appears in a directory and goes from it, and the directory itself.
const EVENTS: u32 = libc::IN_CREATE
    | libc::IN_MOVED_TO
    | libc::IN_DELETE
    | libc::IN_MOVED_FROM
    | libc::IN_DELETE_SELF
    | libc::IN_MOVE_SELF;

/// File systems whose changes nobody in this machine makes, so that inotify is silent: `proc`,
/// `sysfs`, `cgroup2`, `debugfs`, `tracefs`, `9p`, FUSE (virtio-fs), NFS and CIFS
/// (linux/magic.h).
const SILENT: &[u32] = &[
    0x9fa0,
    0x6265_6572,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x0102_1997,
    0x6573_5546,
    0x6969,
    0xff53_4d42,
];

/// What tells of changes on the way to a path.
#[derive(Debug)]
pub(super) struct Changes {
    inotify: File,
    /// Polls as ready when something was mounted or unmounted; absent without `/proc`.
    mounts: Option<File>,
    silent: bool,
}

impl Changes {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: takes an integer and returns a new descriptor.
        let inotify =
            sys::owned(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) })?;
        let mounts = File::open("/proc/self/mountinfo").ok();
        Ok(Self { inotify: inotify.into(), mounts, silent: false })
    }

    /// The way to `path` as it is now; every later change of it wakes.
    pub(super) fn follow(&mut self, path: &Path) -> io::Result<Walk> {
        self.drain()?;
        let mut walked = places::walk(path);
        loop {
            for directory in &walked.directories {
                self.watch(directory)?;
            }
            // What happened before the directories were watched woke nobody: look again.
            let again = places::walk(path);
            let same = again.directories == walked.directories;
            walked = again;
            if same {
                break;
            }
        }
        self.silent = walked.directories.last().is_some_and(|last| is_silent(last));
        Ok(walked)
    }

    pub(super) fn wakers(&self) -> impl Iterator<Item = RawFd> {
        let mounts = self.mounts.as_ref().map(AsRawFd::as_raw_fd);
        [Some(self.inotify.as_raw_fd()), mounts].into_iter().flatten()
    }

    pub(super) fn interval(&self) -> Duration {
        if self.silent { OFTEN } else { RARELY }
    }

    fn watch(&self, directory: &Path) -> io::Result<()> {
        let name = CString::new(directory.as_os_str().as_bytes())?;
        // SAFETY: `name` is a C string that outlives the call.
        let added =
            unsafe { libc::inotify_add_watch(self.inotify.as_raw_fd(), name.as_ptr(), EVENTS) };
        match sys::check(added) {
            // It went in the meantime, which the next walk shows.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(())
            }
            other => other.map(drop),
        }
    }

    fn drain(&mut self) -> io::Result<()> {
        let mut events = [0; 4096];
        loop {
            match self.inotify.read(&mut events) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

fn is_silent(directory: &Path) -> bool {
    let Ok(name) = CString::new(directory.as_os_str().as_bytes()) else { return false };
    // SAFETY: a `statfs` is plain integers, for which zero is valid.
    let mut found: libc::statfs = unsafe { mem::zeroed() };
    // SAFETY: `name` is a C string and `found` a whole `statfs`; both outlive the call.
    let outcome = unsafe { libc::statfs(name.as_ptr(), &raw mut found) };
    // The C libraries do not agree on the type's sign.
    let kind = i128::from(found.f_type);
    outcome == 0 && SILENT.iter().any(|magic| i128::from(*magic) == kind)
}
