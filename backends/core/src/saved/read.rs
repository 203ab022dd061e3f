//! Reading a snapshot's directory. Nothing here needs a hypervisor.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::manifest::{Manifest, Part, corrupt, incompatible};
use super::progress::Progress;
use super::{MANIFEST, blocks};
use crate::error::{Code, Error, Result};
use crate::units::Bytes;

/// No manifest is longer than this.
const MOST_MANIFEST: u64 = 16 << 20;

/// A saved snapshot whose manifest has been read and is whole.
#[derive(Clone, Debug)]
pub struct Saved {
    directory: PathBuf,
    manifest: Manifest,
}

impl Saved {
    /// Reads the manifest of a directory.
    ///
    /// # Errors
    /// `snapshot.not_found` when there is no such directory, `snapshot.corrupt`,
    /// `snapshot.incompatible` for another format, `file.*`.
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join(MANIFEST);
        let file = open_file(&path).map_err(|error| unreadable(directory, &path, error))?;
        let read = |error| unreadable(directory, &path, error);
        let length = file.metadata().map_err(read)?.len();
        if length > MOST_MANIFEST {
            return Err(corrupt(&path, format!("has {length} bytes, too many for a manifest")));
        }
        let json = fs::read(&path).map_err(read)?;
        let manifest = Manifest::from_json(&path, &json)?;
        Ok(Self { directory: directory.to_owned(), manifest })
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The path of a file of the snapshot.
    pub fn path(&self, part: &str) -> PathBuf {
        self.directory.join(part)
    }

    /// Opens a part and checks its length.
    ///
    /// # Errors
    /// `snapshot.corrupt`.
    pub fn open_part(&self, name: &str) -> Result<(File, Part)> {
        let path = self.path(name);
        let Some(part) = self.manifest.parts.get(name) else {
            return Err(corrupt(&self.path(MANIFEST), format!("names no part {name:?}")));
        };
        let broken = |error| corrupt(&path, "cannot be read").with_source(error);
        let file = open_file(&path).map_err(broken)?;
        let length = file.metadata().map_err(broken)?.len();
        if length != part.length {
            let expected = part.length;
            return Err(corrupt(&path, format!("has {length} bytes instead of {expected}")));
        }
        Ok((file, part.clone()))
    }

    /// Opens a part and checks its hash.
    ///
    /// # Errors
    /// `snapshot.corrupt`.
    pub fn verified_part(&self, name: &str, progress: &Progress) -> Result<File> {
        let (file, part) = self.open_part(name)?;
        let path = self.path(name);
        let hash = blocks::hash(&file, part.length, progress)
            .map_err(|error| corrupt(&path, "cannot be read").with_source(error))?;
        if hash != part.hash {
            return Err(corrupt(&path, "does not match its hash"));
        }
        Ok(file)
    }

    /// Reads a whole part and checks its hash.
    ///
    /// # Errors
    /// `snapshot.corrupt`.
    pub fn read_part(&self, name: &str, progress: &Progress) -> Result<Vec<u8>> {
        let (mut file, part) = self.open_part(name)?;
        let path = self.path(name);
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .and_then(|_| progress.advance(bytes.len() as u64))
            .map_err(|error| corrupt(&path, "cannot be read").with_source(error))?;
        if blocks::hash_of_bytes(&bytes) != part.hash {
            return Err(corrupt(&path, "does not match its hash"));
        }
        Ok(bytes)
    }

    /// Checks the hash of every part.
    ///
    /// # Errors
    /// `snapshot.corrupt`, naming the first part that is not what was written.
    pub fn verify(&self, progress: &Progress) -> Result<()> {
        progress.set_total(self.data_length()?);
        self.manifest.parts.keys().try_for_each(|name| self.verified_part(name, progress).map(drop))
    }

    /// The bytes of the parts that are not holes: what there is to read.
    pub fn data_length(&self) -> Result<u64> {
        let lengths = self.manifest.parts.keys().map(|name| {
            let (file, part) = self.open_part(name)?;
            blocks::data_length(&file, part.length)
                .map_err(|error| corrupt(&self.path(name), "cannot be read").with_source(error))
        });
        lengths.sum()
    }

    /// What the directory's files take on disk; parts that are missing take nothing.
    pub fn size_on_disk(&self) -> Bytes {
        use std::os::unix::fs::MetadataExt;
        let names = self.manifest.parts.keys().map(String::as_str).chain([MANIFEST]);
        let blocks = names.filter_map(|name| fs::metadata(self.path(name)).ok());
        Bytes(blocks.map(|metadata| metadata.blocks() * 512).sum())
    }

    /// Checks that the snapshot is of this processor's architecture.
    ///
    /// # Errors
    /// `snapshot.incompatible`.
    pub fn check_architecture(&self) -> Result<()> {
        let (saved, here) = (&self.manifest.architecture, std::env::consts::ARCH);
        if saved == here {
            return Ok(());
        }
        let path = self.path(MANIFEST);
        Err(incompatible(&path, format!("is of a {saved} machine; this host is {here}")))
    }
}

/// Opens what must be a file: a pipe would wait for its other end.
fn open_file(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    File::open(path)
}

fn unreadable(directory: &Path, path: &Path, error: io::Error) -> Error {
    let (code, message) = match error.kind() {
        io::ErrorKind::NotFound if directory.is_dir() => {
            (Code::SnapshotCorrupt, format!("{} lacks its {MANIFEST}", directory.display()))
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if !directory.exists() => {
            (Code::SnapshotNotFound, format!("there is no snapshot at {}", directory.display()))
        }
        io::ErrorKind::NotADirectory => {
            (Code::SnapshotCorrupt, format!("{} is not a directory", directory.display()))
        }
        io::ErrorKind::PermissionDenied => {
            (Code::FilePermission, format!("{} may not be read", path.display()))
        }
        _ => (Code::FileIo, format!("{} cannot be read", path.display())),
    };
    let error = Error::new(code, message).with_source(error);
    let error = match code {
        Code::SnapshotNotFound => error.with_hint(
            "snap:save(directory) writes one; `vmoon snapshot ls` lists those below a directory",
        ),
        _ => error,
    };
    error.with_detail("path", path.display().to_string()).with_detail("part", MANIFEST)
}
