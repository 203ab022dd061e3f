//! The temporary name under which a tree grows beside its place.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::destination::parent;

/// Something that is removed unless it reaches its place.
#[derive(Debug)]
pub(crate) struct Stage {
    /// None once it is in its place.
    path: Option<PathBuf>,
}

impl Stage {
    /// A new file beside `target` that nobody else may read yet.
    pub(crate) fn file(target: &Path) -> io::Result<(Self, File)> {
        Self::make(target, |path| {
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
        })
    }

    /// A new directory beside `target` that nobody else may enter yet.
    pub(crate) fn directory(target: &Path) -> io::Result<Self> {
        Self::make(target, |path| DirBuilder::new().mode(0o700).create(path))
            .map(|(stage, ())| stage)
    }

    fn make<T>(target: &Path, create: impl Fn(&Path) -> io::Result<T>) -> io::Result<(Self, T)> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let process = std::process::id();
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = parent(target).join(format!(".vmoon-{process}-{count}"));
            match create(&path) {
                Ok(made) => return Ok((Self { path: Some(path) }, made)),
                // Another one's, or left by a process that was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where it is now.
    pub(crate) fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or_else(|| Path::new(""))
    }

    /// Puts it in its place, at one moment.
    pub(crate) fn commit(&mut self, target: &Path) -> io::Result<()> {
        fs::rename(self.path(), target)?;
        self.path = None;
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(path) = self.path.take()
            && fs::remove_file(&path).is_err()
            && fs::remove_dir_all(&path).is_err()
        {
            // Directories in it may already have a mode that forbids their owner to empty them.
            open_directories(&path);
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Lets the owner change every directory of a tree; what fails shows when it is removed.
fn open_directories(path: &Path) {
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_directories(&entry.path());
        }
    }
}
