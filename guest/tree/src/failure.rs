//! What goes wrong with files, with a code of the Lua API.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;

use vmoon_protocol::message::Failure;

/// Which side a path is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The guest.
    Guest,
    /// The host.
    Host,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Guest => "in the guest",
            Self::Host => "on the host",
        })
    }
}

impl Place {
    /// The failure of an operation on a path; `done` is its participle: `read`, `written`.
    pub(crate) fn failure(self, error: &io::Error, path: &Path, done: &str) -> Failure {
        match error.kind() {
            ErrorKind::NotFound => {
                fail("file.not_found", format!("{path:?} does not exist {self}"))
            }
            ErrorKind::AlreadyExists => {
                fail("file.exists", format!("{path:?} exists {self} already"))
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                fail("file.permission", format!("{path:?} may not be {done} {self}: {error}"))
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                fail("file.no_space", format!("no space is left {self} for {path:?}"))
            }
            ErrorKind::NotADirectory => fail(
                "file.not_directory",
                format!("{path:?} leads through something {self} that is no directory"),
            ),
            ErrorKind::IsADirectory => self.is_directory(path),
            _ => fail("file.io", format!("{path:?} cannot be {done} {self}: {error}")),
        }
    }

    pub(crate) fn is_directory(self, path: &Path) -> Failure {
        fail("file.is_directory", format!("{path:?} is a directory {self}"))
    }

    pub(crate) fn special(self, path: &Path) -> Failure {
        fail(
            "file.io",
            format!("{path:?} is no file, directory or symbolic link {self}, so it is not copied"),
        )
    }

    pub(crate) fn too_deep(self, path: &Path) -> Failure {
        let most = vmoon_protocol::files::MAX_DEPTH;
        fail(
            "file.io",
            format!("{path:?} lies more than {most} directories deep in the tree {self}"),
        )
    }
}

pub(crate) fn fail(code: &str, message: String) -> Failure {
    Failure { code: code.to_owned(), message }
}

/// Pieces that are no tree: the sender does not keep to the protocol.
pub(crate) fn malformed(what: &str) -> Failure {
    let message = format!("the sender of a tree does not keep to the protocol: {what}");
    fail("agent.unavailable", message)
}
