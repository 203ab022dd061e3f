//! Writes what a guest sees as a disk to a raw image.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tempfile::NamedTempFile;

use super::DiskContents;
use super::extents::{BLOCK, is_zero, total};
use crate::error::{Code, Error, Result};
use crate::saved::Progress;

/// How much is read at once; whole blocks.
const CHUNK: usize = 1 << 20;

/// How the names of unfinished images begin.
const TEMPORARY: &str = ".vmoon-disk-";

/// Writes a disk to `path`, in place of a file that is there: sparse, and at one moment. Whoever
/// looks sees the old file or the new one, and its bytes are on the host's disk when this returns.
/// Only its owner may read it. `check` is asked once all has been read, and its error ends it.
///
/// # Errors
/// `file.*`; `path` is then as it was.
pub(crate) fn commit(
    disk: &dyn DiskContents,
    path: &Path,
    progress: &Progress,
    check: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let target = resolve(path).map_err(|error| failed(path, error))?;
    check_replaceable(&target)?;
    let temporary = write(disk, &target, progress).map_err(|error| failed(&target, error))?;
    check()?;
    put_in_place(temporary, &target).map_err(|error| failed(&target, error))
}

/// Writes the disk under a temporary name beside its target.
fn write(disk: &dyn DiskContents, target: &Path, progress: &Progress) -> io::Result<NamedTempFile> {
    let temporary = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(parent_of(target))?;
    let file = temporary.as_file();
    file.set_len(disk.length())?;
    let ranges = disk.data()?;
    progress.set_total(total(&ranges));
    let mut buffer = vec![0; CHUNK];
    for Range { mut start, end } in ranges {
        while start < end {
            let count = usize::try_from(end - start).map_or(CHUNK, |rest| rest.min(CHUNK));
            let chunk = &mut buffer[..count];
            disk.read(start, chunk)?;
            write_sparse(file, start, chunk)?;
            start += count as u64;
            progress.advance(count as u64)?;
        }
    }
    file.sync_all()?;
    // The last moment to think better of it.
    progress.advance(0)?;
    Ok(temporary)
}

fn put_in_place(temporary: NamedTempFile, target: &Path) -> io::Result<()> {
    temporary.persist(target).map_err(|error| error.error)?;
    File::open(parent_of(target))?.sync_all()
}

fn parent_of(target: &Path) -> &Path {
    target.parent().unwrap_or(target)
}

/// Writes what is not zero. The rest of the file is a hole.
fn write_sparse(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut position = 0;
    for run in bytes.chunks(BLOCK).collect::<Vec<_>>().chunk_by(|a, b| is_zero(a) == is_zero(b)) {
        let length = run.iter().map(|block| block.len()).sum::<usize>();
        if !is_zero(run[0]) {
            file.write_all_at(&bytes[position..position + length], offset + position as u64)?;
        }
        position += length;
    }
    Ok(())
}

/// The absolute path, through a link that is there.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => std::path::absolute(path),
        resolved => resolved,
    }
}

/// Refuses to replace what is no file, and an image that a machine uses.
fn check_replaceable(target: &Path) -> Result<()> {
    match fs::metadata(target) {
        Ok(metadata) if metadata.is_file() => {
            // Without permission to look nobody here uses it.
            let Ok(file) = File::open(target) else { return Ok(()) };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    Err(failed(target, io::ErrorKind::ResourceBusy.into())
                        .with_hint("a machine uses this image; give another path"))
                }
                _ => Ok(()),
            }
        }
        Ok(_) => Err(failed(target, io::ErrorKind::AlreadyExists.into())
            .with_hint("give the path of a file, which need not exist")),
        Err(_) => Ok(()),
    }
}

fn failed(path: &Path, error: io::Error) -> Error {
    let (code, hint) = match error.kind() {
        io::ErrorKind::NotFound => {
            (Code::FileNotFound, Some("the directory of the path must exist"))
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            (Code::FilePermission, None)
        }
        io::ErrorKind::StorageFull => (Code::FileIo, Some("free space on the disk")),
        _ => (Code::FileIo, None),
    };
    let shown = Error::new(code, format!("cannot write a disk to {}", path.display()))
        .with_source(error)
        .with_detail("path", path.display().to_string());
    match hint {
        Some(hint) => shown.with_hint(hint),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::disk::extents::extents;
    use crate::saved::Work;

    /// A disk that says that all of it may be data.
    #[derive(Debug)]
    struct Bytes(Vec<u8>);

    impl DiskContents for Bytes {
        fn length(&self) -> u64 {
            self.0.len() as u64
        }

        fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
            let start = usize::try_from(offset).unwrap();
            bytes.copy_from_slice(&self.0[start..start + bytes.len()]);
            Ok(())
        }

        fn data(&self) -> io::Result<Vec<Range<u64>>> {
            Ok(std::iter::once(0..self.length()).collect())
        }
    }

    fn work() -> Progress {
        Progress::new(Work::Committing, None)
    }

    #[test]
    fn an_image_is_whole_sparse_and_replaces_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        let mut bytes = vec![0; 5 << 20];
        bytes[3 << 20..][..10].fill(7);
        *bytes.last_mut().unwrap() = 9;
        fs::write(&path, "old").unwrap();
        commit(&Bytes(bytes.clone()), &path, &work(), || Ok(())).unwrap();
        assert!(fs::read(&path).unwrap() == bytes);
        assert!(fs::metadata(&path).unwrap().blocks() * 512 <= 64 << 10);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_work_that_is_stopped_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        fs::write(&path, "old").unwrap();
        let progress = work();
        drop(progress.stop_on_drop());
        commit(&Bytes(vec![1; 8192]), &path, &progress, || Ok(())).unwrap_err();
        let check = || Err(Error::new(Code::VmState, "changed"));
        let error = commit(&Bytes(vec![1; 8192]), &path, &work(), check).unwrap_err();
        assert_eq!(error.code(), Code::VmState);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_may_not_be_replaced_stays() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Bytes(vec![1; 4096]);
        let refused = |path: &Path| commit(&disk, path, &work(), || Ok(())).unwrap_err();
        let there = refused(folder.path());
        assert_eq!(there.code(), Code::FileIo);
        assert!(there.hint().is_some());
        assert_eq!(refused(&folder.path().join("none/disk.img")).code(), Code::FileNotFound);
        let used = folder.path().join("used");
        fs::write(&used, "used").unwrap();
        let machine = File::open(&used).unwrap();
        flock(&machine, FlockOperation::LockShared).unwrap();
        assert!(refused(&used).hint().unwrap().contains("a machine uses"));
        assert_eq!(fs::read(&used).unwrap(), b"used");
    }

    #[test]
    fn extents_of_an_image_are_where_its_bytes_are() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        write_sparse(&file, 8192, &[[0; BLOCK], [1; BLOCK], [0; BLOCK]].concat()).unwrap();
        let found = extents(&file, 1 << 20).unwrap();
        assert!(found.iter().any(|range| range.contains(&12288)), "{found:?}");
    }
}
