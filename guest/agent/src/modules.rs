//! Loads the kernel modules that the initramfs brings.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::sys;

/// Paths of modules, one a line, in the order in which to load them.
const LIST: &str = "/etc/vmoon/modules";

/// Loads every module of the list; reports what cannot be loaded, and goes on.
pub(crate) fn load_all() {
    let list = fs::read_to_string(LIST).unwrap_or_default();
    for path in list.lines().filter(|line| !line.is_empty()) {
        if let Err(error) = load(path) {
            eprintln!("vmoon-agent: cannot load {path}: {error}");
        }
    }
}

fn load(path: &str) -> io::Result<()> {
    let file = File::open(path)?;
    // `.ko`, or one of `.ko.gz`, `.ko.xz` and `.ko.zst`.
    let compressed = Path::new(path).extension() != Some("ko".as_ref());
    match sys::load_module(file.as_raw_fd(), compressed) {
        // Loaded already, or built in.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        // Hardware that this machine does not have.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        Err(error)
            if compressed
                && matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) =>
        {
            Err(io::Error::other(
                "the kernel does not decompress modules; it takes Linux 5.17 with \
                 CONFIG_MODULE_DECOMPRESS, or modules that are not compressed",
            ))
        }
        other => other,
    }
}
