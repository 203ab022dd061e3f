//! Names that the guest declares, by `vmoon-agent ready NAME`: each is a file in a directory of
//! their own. So a declaration lasts as long as the guest's state does, a restore takes it back,
//! and whoever waits hears of it from inotify.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where the names lie in a guest.
pub(crate) const DIRECTORY: &str = "/run/vmoon/ready";

/// The longest name in bytes: a file's.
const LONGEST: usize = 255;

/// Makes the directory. Any user's program may declare.
pub(crate) fn prepare(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o1777))
}

/// Declares a name. Again is no error.
pub(crate) fn declare(directory: &Path, name: &str) -> io::Result<()> {
    let path = path(directory, name).map_err(io::Error::other)?;
    match File::create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("cannot declare {name:?} in {}: {error}", directory.display()),
        )),
        Ok(_) => Ok(()),
    }
}

/// The file of a name.
///
/// # Errors
/// One line for people when it is no name.
pub(crate) fn path(directory: &Path, name: &str) -> Result<PathBuf, String> {
    let fits = !name.is_empty() && name.len() <= LONGEST && name != "." && name != "..";
    if fits && !name.contains(['/', '\0']) {
        return Ok(directory.join(name));
    }
    Err(format!("{name:?} cannot be declared: a name has no slash, and 1 to {LONGEST} bytes"))
}

/// What has been declared, for people.
pub(crate) fn describe(directory: &Path) -> String {
    let mut names: Vec<String> = fs::read_dir(directory)
        .map(|entries| {
            entries
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect()
        })
        .unwrap_or_default();
    if names.is_empty() {
        return "the guest has declared nothing".to_owned();
    }
    names.sort_unstable();
    format!("the guest has declared {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_declared_once_and_listed() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("ready");
        assert!(declare(&directory, "db").is_err(), "no directory yet");
        prepare(&directory).unwrap();
        assert_eq!(describe(&directory), "the guest has declared nothing");
        for name in ["web", "db", "db"] {
            declare(&directory, name).unwrap();
        }
        assert_eq!(describe(&directory), "the guest has declared db, web");
        for name in ["", "..", "a/b", "a\0b", &"x".repeat(256)] {
            assert!(declare(&directory, name).is_err(), "{name:?}");
        }
    }
}
