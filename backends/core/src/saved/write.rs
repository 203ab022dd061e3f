//! Writing a snapshot's directory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use tempfile::TempDir;

use super::blocks::{BLOCK, BlockHasher};
use super::manifest::{Manifest, Part};
use super::progress::Progress;
use super::{MANIFEST, TEMPORARY, folder};
use crate::error::{Code, Error, Result};

/// A snapshot's directory while it is written, under a temporary name beside its target. Removed
/// if it is dropped before [`Writer::commit`].
#[derive(Debug)]
pub struct Writer {
    target: PathBuf,
    temporary: TempDir,
    /// Held until the end: what is not locked has no writer any more.
    lock: File,
    parts: BTreeMap<String, Part>,
    progress: Progress,
}

impl Writer {
    /// Begins to write to `directory`, which need not exist; a snapshot that is there will be
    /// replaced.
    ///
    /// # Errors
    /// `file.*`, also when something else is there.
    pub fn begin(directory: &Path, progress: Progress) -> Result<Self> {
        let failed = |error: io::Error| failed(directory, error);
        let target = resolve(directory).map_err(failed)?;
        if target.exists() && !folder::is_replaceable(&target).map_err(failed)? {
            return Err(failed(io::ErrorKind::AlreadyExists.into())
                .with_hint("give a directory that does not exist, or a snapshot to replace"));
        }
        let parent = parent_of(&target);
        fs::create_dir_all(parent).map_err(failed)?;
        let (temporary, lock) = temporary_in(parent).map_err(failed)?;
        Ok(Self { target, temporary, lock, parts: BTreeMap::new(), progress })
    }

    /// Begins a part of `length` bytes, of which all that is not written is zero.
    ///
    /// # Errors
    /// `file.*`.
    pub fn part(&self, name: &str, length: u64) -> Result<PartWriter> {
        let path = self.temporary.path().join(name);
        let file = File::create_new(path).and_then(|file| file.set_len(length).map(|()| file));
        Ok(PartWriter {
            file: file.map_err(|error| self.failed(error))?,
            length,
            hasher: BlockHasher::default(),
            first: 0,
            pending: Vec::new(),
            progress: self.progress.clone(),
        })
    }

    /// Ends a part: its bytes are on the disk when this returns.
    ///
    /// # Errors
    /// `file.*`.
    pub fn finish(&mut self, name: &str, part: PartWriter) -> Result<()> {
        let part = part.finish().map_err(|error| self.failed(error))?;
        self.parts.insert(name.to_owned(), part);
        Ok(())
    }

    /// Writes a whole part.
    ///
    /// # Errors
    /// `file.*`.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut part = self.part(name, bytes.len() as u64)?;
        for (index, block) in (0..).zip(bytes.chunks(BLOCK)) {
            part.block(index, block).map_err(|error| self.failed(error))?;
        }
        self.finish(name, part)
    }

    /// Writes the manifest, to which the parts are added, and puts the directory in its place:
    /// at one moment, and for good.
    ///
    /// # Errors
    /// `file.*`.
    pub fn commit(self, manifest: Manifest) -> Result<()> {
        let manifest = Manifest { parts: self.parts.clone(), ..manifest };
        self.put_in_place(&manifest).map_err(|error| self.failed(error))
        // What the temporary name stands for now is the replaced snapshot, or nothing.
    }

    fn put_in_place(&self, manifest: &Manifest) -> io::Result<()> {
        let temporary = self.temporary.path();
        let mut file = File::create_new(temporary.join(MANIFEST))?;
        file.write_all(&manifest.to_json()?)?;
        file.sync_all()?;
        self.lock.sync_all()?;
        // The last moment to think better of it.
        self.progress.advance(0)?;
        exchange(temporary, &self.target)?;
        File::open(parent_of(&self.target))?.sync_all()
    }

    /// The error of anything that goes wrong with these files.
    pub fn failed(&self, error: io::Error) -> Error {
        failed(&self.target, error)
    }
}

fn failed(directory: &Path, error: io::Error) -> Error {
    let (code, hint) = match error.kind() {
        io::ErrorKind::PermissionDenied => (Code::FilePermission, None),
        io::ErrorKind::StorageFull => (Code::FileIo, Some("free space on the disk")),
        _ => (Code::FileIo, None),
    };
    let shown = Error::new(code, format!("cannot save a snapshot to {}", directory.display()))
        .with_source(error)
        .with_detail("path", directory.display().to_string());
    match hint {
        Some(hint) => shown.with_hint(hint),
        None => shown,
    }
}

/// The absolute path, through a link that is there.
fn resolve(directory: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::path::absolute(directory),
        resolved => resolved,
    }
}

fn parent_of(target: &Path) -> &Path {
    target.parent().unwrap_or(target)
}

/// Makes a locked directory in `parent`, and removes those that killed writers left there.
pub(super) fn temporary_in(parent: &Path) -> io::Result<(TempDir, File)> {
    // Between the making of a directory and its lock nobody may take it for a left one. A file
    // system without locks keeps what killed writers leave.
    let guard = File::open(parent)?;
    if flock(&guard, FlockOperation::LockExclusive).is_ok() {
        folder::remove_abandoned(parent);
    }
    // A machine's memory is nobody else's business.
    let permissions = fs::Permissions::from_mode(0o700);
    let temporary =
        tempfile::Builder::new().prefix(TEMPORARY).permissions(permissions).tempdir_in(parent)?;
    let lock = File::open(temporary.path())?;
    // Nobody else holds it.
    let _ = flock(&lock, FlockOperation::NonBlockingLockExclusive);
    Ok((temporary, lock))
}

/// Renames `new` to `target`; a directory that is there takes `new`'s name instead.
fn exchange(new: &Path, target: &Path) -> io::Result<()> {
    if target.exists() {
        return Ok(renameat_with(CWD, new, CWD, target, RenameFlags::EXCHANGE)?);
    }
    match renameat_with(CWD, new, CWD, target, RenameFlags::NOREPLACE) {
        // The file system does not know the flag.
        Err(rustix::io::Errno::INVAL) => fs::rename(new, target),
        result => Ok(result?),
    }
}

/// A part while it is written.
#[derive(Debug)]
pub struct PartWriter {
    file: File,
    length: u64,
    hasher: BlockHasher,
    /// The first block of those that wait to be written at once.
    first: u64,
    pending: Vec<u8>,
    progress: Progress,
}

impl PartWriter {
    const MOST_PENDING: usize = 1 << 20;

    /// Writes a block of [`BLOCK`] bytes, or the shorter last one. Blocks come in ascending order;
    /// those of zeroes are left out.
    pub fn block(&mut self, index: u64, contents: &[u8]) -> io::Result<()> {
        if !self.hasher.add(index, contents) {
            return Ok(());
        }
        let next = self.first + (self.pending.len() / BLOCK) as u64;
        if index != next || self.pending.len() >= Self::MOST_PENDING {
            self.flush()?;
            self.first = index;
        }
        self.pending.extend_from_slice(contents);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.pending, self.first * BLOCK as u64)?;
        self.progress.advance(self.pending.len() as u64)?;
        self.pending.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<Part> {
        self.flush()?;
        self.file.sync_all()?;
        Ok(Part { length: self.length, hash: self.hasher.finish(self.length) })
    }
}
