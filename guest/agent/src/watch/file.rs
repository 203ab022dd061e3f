//! A path exists, or is gone.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::changes::Changes;
use super::wait::{Condition, Look};
use crate::readiness;

/// The wait for a file.
#[derive(Debug)]
pub(super) struct FileCondition {
    path: PathBuf,
    wanted: Wanted,
    changes: Changes,
}

#[derive(Debug)]
enum Wanted {
    Exists,
    Gone,
    /// It is one of the names in this directory that the guest declares.
    Declared(PathBuf),
}

impl FileCondition {
    pub(super) fn exists(path: &[u8]) -> io::Result<Self> {
        Self::new(Path::new(OsStr::from_bytes(path)), Wanted::Exists)
    }

    pub(super) fn gone(path: &[u8]) -> io::Result<Self> {
        Self::new(Path::new(OsStr::from_bytes(path)), Wanted::Gone)
    }

    pub(super) fn ready(directory: &Path, path: &Path) -> io::Result<Self> {
        Self::new(path, Wanted::Declared(directory.to_owned()))
    }

    fn new(path: &Path, wanted: Wanted) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), wanted, changes: Changes::new()? })
    }
}

impl Condition for FileCondition {
    fn look(&mut self) -> io::Result<Look> {
        let missing = self.changes.follow(&self.path)?.missing;
        Ok(match (&self.wanted, missing) {
            (Wanted::Exists | Wanted::Declared(_), None) | (Wanted::Gone, Some(_)) => Look::True,
            (Wanted::Exists, Some(missing)) => Look::NotYet(absent(&missing)),
            (Wanted::Declared(directory), Some(_)) => Look::NotYet(readiness::describe(directory)),
            (Wanted::Gone, None) => Look::NotYet(format!("there is still {}", kind(&self.path))),
        })
    }

    fn wakers(&self) -> Vec<RawFd> {
        self.changes.wakers().collect()
    }

    fn interval(&self) -> Duration {
        self.changes.interval()
    }
}

/// What is missing, for people.
pub(super) fn absent(missing: &Path) -> String {
    format!("{} does not exist", missing.display())
}

/// What lies at a path, for people.
pub(super) fn kind(path: &Path) -> String {
    let Ok(found) = fs::metadata(path) else { return "something".to_owned() };
    if found.is_dir() {
        "a directory".to_owned()
    } else if found.is_file() {
        format!("a file of {} bytes", found.len())
    } else {
        "a special file".to_owned()
    }
}
