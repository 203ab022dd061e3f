//! The file systems of the assembled initramfs.

use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::sys;

/// Type, target, options and the permissions of the mounted root.
const MOUNTS: &[(&CStr, &str, &CStr, libc::c_ulong)] = &[
    (c"proc", "/proc", c"", RESTRICTED),
    (c"sysfs", "/sys", c"", RESTRICTED),
    (c"devtmpfs", "/dev", c"mode=0755", libc::MS_NOSUID),
    (c"devpts", "/dev/pts", c"gid=5,mode=0620,ptmxmode=0666", libc::MS_NOSUID),
    (c"tmpfs", "/dev/shm", c"mode=1777", libc::MS_NOSUID | libc::MS_NODEV),
    (c"tmpfs", "/run", c"mode=0755", libc::MS_NOSUID | libc::MS_NODEV),
    (c"tmpfs", "/tmp", c"mode=1777", libc::MS_NOSUID | libc::MS_NODEV),
];

const RESTRICTED: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;

/// Names under `/dev` that programs expect and that the kernel does not make.
const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

/// Mounts what programs expect; reports what cannot be mounted, and goes on.
pub(crate) fn mount_all() {
    for (kind, target, options, flags) in MOUNTS {
        if let Err(error) = fs::create_dir_all(target)
            .and_then(|()| mount(kind, Path::new(target), options, *flags))
        {
            eprintln!("vmoon-agent: cannot mount {target}: {error}");
        }
    }
    for (original, link) in LINKS {
        // An existing one is as good.
        let _ = symlink(original, link);
    }
    // devpts has its own multiplexer; the one of devtmpfs opens the same but is for root alone.
    let _ = fs::set_permissions("/dev/ptmx", fs::Permissions::from_mode(0o666));
}

/// Mounts the description of the kernel's trace events, where it is usually found.
pub(crate) fn mount_tracing() -> io::Result<()> {
    mount(c"tracefs", Path::new("/sys/kernel/tracing"), c"", RESTRICTED)
}

/// Mounts a file system that is on no device.
fn mount(kind: &CStr, target: &Path, options: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    mount_device(Path::new(OsStr::from_bytes(kind.to_bytes())), kind, target, options, flags)
}

/// Mounts a file system of this kind on a device.
pub(crate) fn mount_device(
    source: &Path,
    kind: &CStr,
    target: &Path,
    options: &CStr,
    flags: libc::c_ulong,
) -> io::Result<()> {
    let source = CString::new(source.as_os_str().as_encoded_bytes())?;
    let target = CString::new(target.as_os_str().as_encoded_bytes())?;
    // SAFETY: all pointers are C strings that outlive the call.
    sys::check(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast())
    })?;
    Ok(())
}

/// Unmounts the file systems that are on block devices, newest first, or else makes them
/// read-only; either leaves them clean.
pub(crate) fn release_disks() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let targets: Vec<&str> = mounts
        .lines()
        .filter(|line| line.starts_with("/dev/"))
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    for target in targets.into_iter().rev() {
        let Ok(target) = CString::new(target) else { continue };
        // SAFETY: `target` is a C string that outlives the call.
        if sys::check(unsafe { libc::umount2(target.as_ptr(), 0) }).is_err() {
            // SAFETY: as above; a remount takes neither source, type nor data.
            unsafe {
                libc::mount(
                    std::ptr::null(),
                    target.as_ptr(),
                    std::ptr::null(),
                    libc::MS_REMOUNT | libc::MS_RDONLY,
                    std::ptr::null(),
                )
            };
        }
    }
}
