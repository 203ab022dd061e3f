//! Where a tree goes: as `cp -a` has it.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use vmoon_protocol::message::Failure;

use crate::failure::{Place, fail};

/// As many symbolic links as Linux follows.
const MOST_LINKS: usize = 40;

/// Where a tree is to go.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The path. Where it is a directory, the tree goes into it as `name`.
    pub path: PathBuf,
    /// The tree's name in a directory; none when the path may not be a directory.
    pub name: Option<OsString>,
    /// Whether missing directories above the path are made.
    pub parents: bool,
    /// Whose path it is.
    pub place: Place,
}

/// The path that a tree gets, and what is there now.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    pub(crate) existing: Option<Metadata>,
}

impl Destination {
    /// The path that the tree gets.
    pub(crate) fn resolve(&self) -> Result<Target, Failure> {
        let given = self.path.as_os_str().as_bytes();
        if given.is_empty() || given.contains(&0) {
            let message = format!("{:?} is no path {}", self.path, self.place);
            return Err(fail("file.not_found", message));
        }
        let mut path = self.path.clone();
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => match &self.name {
                Some(name) if is_component(name.as_bytes()) => path.push(name),
                Some(_) => {
                    let message = format!("the copy needs a name in {path:?} {}", self.place);
                    return Err(fail("file.is_directory", message));
                }
                None => return Err(self.place.is_directory(&path)),
            },
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_parents(&path)?,
            Err(error) => return Err(self.place.failure(&error, &path, "written")),
        }
        self.follow(path)
    }

    fn make_parents(&self, path: &Path) -> Result<(), Failure> {
        match parent(path) {
            parent if self.parents => fs::create_dir_all(parent)
                .map_err(|error| self.place.failure(&error, parent, "made")),
            _ => Ok(()),
        }
    }

    /// In the guest, a file is written through a symbolic link, as everything in a guest would.
    /// On the host a link may be one that a guest made, and is replaced.
    fn follow(&self, mut path: PathBuf) -> Result<Target, Failure> {
        for _ in 0..MOST_LINKS {
            let existing = match fs::symlink_metadata(&path) {
                Ok(metadata) => Some(metadata),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(self.place.failure(&error, &path, "written")),
            };
            let is_link = existing.as_ref().is_some_and(Metadata::is_symlink);
            if !is_link || self.place == Place::Host {
                return Ok(Target { path, existing });
            }
            let link = fs::read_link(&path)
                .map_err(|error| self.place.failure(&error, &path, "followed"))?;
            path = parent(&path).join(link);
        }
        let message = format!("{path:?} leads round in a circle {}", self.place);
        Err(fail("file.io", message))
    }
}

/// The directory in which a path lies.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    }
}

/// Whether a name is one component of a path, and so stays in its directory.
pub(crate) fn is_component(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && !name.contains(&0)
}
