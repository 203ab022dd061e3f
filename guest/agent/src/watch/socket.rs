//! Somebody listens on a Unix socket, or receives datagrams.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::changes::Changes;
use super::file;
use super::listening::Listening;
use super::wait::{Condition, Look, OFTEN};

/// `__SO_ACCEPTCON` in the flags of `/proc/net/unix`: the socket listens.
const LISTENS: &[u8] = b"00010000";
/// `SOCK_DGRAM` in its types: a bound socket receives.
const DATAGRAM: &[u8] = b"0002";

/// The wait for a Unix socket.
#[derive(Debug)]
pub(super) struct SocketCondition {
    path: PathBuf,
    changes: Changes,
    listening: Option<Listening>,
}

impl SocketCondition {
    pub(super) fn new(path: &[u8]) -> io::Result<Self> {
        let path = Path::new(OsStr::from_bytes(path)).to_owned();
        Ok(Self { path, changes: Changes::new()?, listening: Listening::open().ok() })
    }

    /// A name in the kernel's table, and in no directory.
    fn look_for_name(&self) -> io::Result<Look> {
        let names = receivers()?;
        if names.contains(self.path.as_os_str().as_bytes()) {
            return Ok(Look::True);
        }
        Ok(Look::NotYet("nobody listens on it".to_owned()))
    }
}

impl Condition for SocketCondition {
    fn look(&mut self) -> io::Result<Look> {
        if self.path.as_os_str().as_bytes().starts_with(b"@") {
            return self.look_for_name();
        }
        if let Some(missing) = self.changes.follow(&self.path)?.missing {
            return Ok(Look::NotYet(file::absent(&missing)));
        }
        let Ok(wanted) = fs::metadata(&self.path) else {
            return Ok(Look::NotYet(file::absent(&self.path)));
        };
        if !wanted.file_type().is_socket() {
            return Ok(Look::NotYet(format!("it is {}", file::kind(&self.path))));
        }
        // Whoever bound it may have called it by another name.
        let is_wanted = |name: &Vec<u8>| {
            fs::metadata(OsStr::from_bytes(name))
                .is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()))
        };
        if receivers()?.iter().any(is_wanted) {
            return Ok(Look::True);
        }
        Ok(Look::NotYet("the socket exists, but nobody listens on it".to_owned()))
    }

    fn wakers(&self) -> Vec<RawFd> {
        let listening = self.listening.iter().flat_map(Listening::descriptors);
        self.changes.wakers().chain(listening).collect()
    }

    fn interval(&self) -> Duration {
        if self.listening.is_some() { self.changes.interval() } else { OFTEN }
    }
}

/// The names of the Unix sockets that take connections or datagrams.
fn receivers() -> io::Result<BTreeSet<Vec<u8>>> {
    let table = fs::read("/proc/net/unix")?;
    Ok(table.split(|byte| *byte == b'\n').skip(1).filter_map(receiver).collect())
}

/// The name in a line of `/proc/net/unix`: its eighth column, which may hold spaces.
fn receiver(line: &[u8]) -> Option<Vec<u8>> {
    let mut rest = line;
    let mut column = || {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
        let (column, tail) = rest.split_at(end);
        rest = tail;
        column
    };
    // Address, reference count and protocol.
    let [_, _, _, flags, kind, _, _] = [(); 7].map(|()| column());
    let name = rest.strip_prefix(b" ")?;
    (flags == LISTENS || kind == DATAGRAM).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_that_receive_count() {
        let listens = b"0000000000000000: 00000002 00000000 00010000 0001 01 22528 /run/a b";
        assert_eq!(receiver(listens), Some(b"/run/a b".to_vec()));
        let datagrams = b"0000000000000000: 00000002 00000000 00000000 0002 01   523 @log";
        assert_eq!(receiver(datagrams), Some(b"@log".to_vec()));
        let bound = b"0000000000000000: 00000002 00000000 00000000 0001 01 22528 /run/x";
        assert_eq!(receiver(bound), None);
        let nameless = b"0000000000000000: 00000003 00000000 00000000 0002 03 18431";
        assert_eq!(receiver(nameless), None);
        assert_eq!(receiver(b""), None);
    }
}
