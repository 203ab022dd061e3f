//! Waits for ports, files and units. The host asks once and is told when it came true.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use vmoon_protocol::message::Watch;

use crate::{sys, vsock_listeners};

/// How often the table of sockets is read while a port is awaited. Linux tells nobody that a
/// socket began to listen; inside the guest a look costs microseconds.
const PORT_INTERVAL: Duration = Duration::from_millis(3);

/// How often a file is looked for beside what inotify tells: it is silent about changes that
/// another machine makes to a shared directory, and about `/proc` and `/sys`.
const FILE_INTERVAL: Duration = Duration::from_millis(250);

/// How often systemd is asked for a unit's state.
const UNIT_INTERVAL: Duration = Duration::from_millis(100);

/// How a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It came true.
    True,
    /// The event was raised.
    Cancelled,
    /// It cannot come true here.
    Unsupported(String),
}

/// Waits until `wanted` is true or `cancel` is raised.
pub(crate) fn wait(wanted: &Watch, cancel: &OwnedFd) -> io::Result<Outcome> {
    match wanted {
        Watch::Port(port) => wait_until(PORT_INTERVAL, cancel, || {
            Ok(listens(*port)? || vsock_listeners::listens((*port).into()).unwrap_or(false))
        }),
        Watch::File(path) => wait_file(Path::new(OsStr::from_bytes(path)), cancel),
        Watch::Unit(_) if !Path::new("/run/systemd/system").exists() => Ok(Outcome::Unsupported(
            "the guest does not run systemd, so it has no units".to_owned(),
        )),
        Watch::Unit(name) => wait_until(UNIT_INTERVAL, cancel, || is_active(name)),
    }
}

fn wait_until(
    interval: Duration,
    cancel: &OwnedFd,
    mut is_true: impl FnMut() -> io::Result<bool>,
) -> io::Result<Outcome> {
    loop {
        if is_true()? {
            return Ok(Outcome::True);
        }
        if sys::poll(&mut [sys::entry(Some(cancel), libc::POLLIN)], Some(interval))? > 0 {
            return Ok(Outcome::Cancelled);
        }
    }
}

/// Whether somebody listens on a TCP port, on any address.
fn listens(port: u16) -> io::Result<bool> {
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match fs::read_to_string(table) {
            Ok(text) if lists_listener(&text, port) => return Ok(true),
            Ok(_) => {}
            // A kernel without IPv6, or one without TCP at all.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Looks for a listening socket (state 0A) in the text of `/proc/net/tcp`.
fn lists_listener(table: &str, port: u16) -> bool {
    let port = format!(":{port:04X}");
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1).unwrap_or_default();
        let state = fields.nth(1).unwrap_or_default();
        state == "0A" && local.ends_with(&port)
    })
}

fn is_active(unit: &str) -> io::Result<bool> {
    Command::new("systemctl")
        .args(["is-active", "--quiet", "--", unit])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map(|status| status.success())
}

fn wait_file(path: &Path, cancel: &OwnedFd) -> io::Result<Outcome> {
    while !path.exists() {
        // A new instance for each step: the directory to look at may have come nearer, and an
        // event of an older one says nothing.
        let events = watch_directory(&nearest_directory(path))?;
        if path.exists() {
            break;
        }
        let mut entries =
            [sys::entry(Some(cancel), libc::POLLIN), sys::entry(Some(&events), libc::POLLIN)];
        sys::poll(&mut entries, Some(FILE_INTERVAL))?;
        if entries[0].revents != 0 {
            return Ok(Outcome::Cancelled);
        }
    }
    Ok(Outcome::True)
}

/// The directory in which the next missing part of `path` would appear.
fn nearest_directory(path: &Path) -> PathBuf {
    path.ancestors()
        .skip(1)
        .find(|ancestor| ancestor.is_dir())
        .map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

/// An inotify instance that reports what appears in a directory, and when the directory goes.
fn watch_directory(directory: &Path) -> io::Result<OwnedFd> {
    const APPEARS: u32 = libc::IN_CREATE | libc::IN_MOVED_TO | libc::IN_ATTRIB;
    const GOES: u32 = libc::IN_DELETE_SELF | libc::IN_MOVE_SELF;
    // SAFETY: takes an integer and returns a new descriptor.
    let events = sys::owned(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) })?;
    let name = CString::new(directory.as_os_str().as_bytes())?;
    // SAFETY: `name` is a C string that outlives the call.
    let added =
        unsafe { libc::inotify_add_watch(events.as_raw_fd(), name.as_ptr(), APPEARS | GOES) };
    match sys::check(added) {
        // The directory went in the meantime: the caller looks again soon.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(events),
        other => other.map(|_| events),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue\n\
        \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n\
        \x20  1: 0100007F:0050 0100007F:9C40 01 00000000:00000000\n";

    #[test]
    fn only_listening_sockets_count() {
        assert!(lists_listener(TABLE, 8080));
        assert!(!lists_listener(TABLE, 80), "connected, not listening");
        assert!(!lists_listener(TABLE, 40000), "somebody else's port");
        assert!(!lists_listener("", 1));
    }

    #[test]
    fn the_nearest_directory_exists() {
        assert_eq!(nearest_directory(Path::new("/proc/vmoon/a/b")), Path::new("/proc"));
        assert_eq!(nearest_directory(Path::new("/")), Path::new("/"));
        assert_eq!(nearest_directory(Path::new("relative")), Path::new("/"));
    }

    #[test]
    fn a_raised_event_ends_every_wait() {
        let cancel = sys::eventfd().unwrap();
        sys::raise(&cancel);
        for wanted in [Watch::Port(1), Watch::File(b"/proc/vmoon/none".to_vec())] {
            assert_eq!(wait(&wanted, &cancel).unwrap(), Outcome::Cancelled);
        }
    }
}
