//! An image on the host.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use vmoon_core::disk::extents::extents;
use vmoon_core::disk::format::{Head, ImageFormat};
use vmoon_core::error::{Code, Error, Result};

use super::qcow2::Qcow2;

/// The unit of the device, in bytes.
pub(super) const SECTOR: u64 = 512;

/// An open image. Its size is taken once, so that a file that grows is read as it was, and one
/// that shrinks fails where it ends.
#[derive(Debug)]
pub(super) struct Image {
    /// The file, whatever its format: its lock is held by this descriptor.
    file: File,
    /// What is in it, where that is not the disk byte by byte.
    qcow2: Option<Qcow2>,
    path: PathBuf,
    length: u64,
    writable: bool,
}

impl Image {
    /// Opens an image.
    ///
    /// # Errors
    /// `file.*` where it cannot be opened; `vm.spec` where it is no image.
    pub(super) fn open(path: &Path, writable: bool) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(writable)
            .open(path)
            .map_err(|error| open_error(path, writable, error))?;
        let failed = |error| open_error(path, writable, error);
        let head = Head::read(&file).map_err(failed)?;
        let qcow2 = match head.format() {
            ImageFormat::Qcow2 => Some(Qcow2::open(path, &file, &head)?),
            _ => None,
        };
        let length = match &qcow2 {
            Some(qcow2) => Some(qcow2.length()),
            None => length(&file).map_err(failed)?,
        };
        let wrong = |what: &str| {
            Error::new(Code::VmSpec, format!("disk {} {what}", path.display()))
                .with_hint("a disk is a raw image, a whole number of sectors of 512 bytes long")
                .with_detail("path", path.display().to_string())
        };
        let Some(length) = length else { return Err(wrong("is neither a file nor a device")) };
        if length == 0 {
            return Err(wrong("is empty"));
        }
        if !length.is_multiple_of(SECTOR) {
            return Err(wrong(&format!("has {length} bytes, which is no whole number of sectors")));
        }
        Ok(Self { file, qcow2, path: path.to_owned(), length, writable })
    }

    /// Takes the file's lock: shared to read it, for oneself alone to write to it. It goes with the
    /// file, also when this process is killed.
    ///
    /// # Errors
    /// `file.io` when it is in use.
    pub(super) fn hold(&self) -> Result<()> {
        let (operation, problem) = if self.writable {
            (FlockOperation::NonBlockingLockExclusive, "cannot be written in place: it is in use")
        } else {
            (FlockOperation::NonBlockingLockShared, "is in use: another machine writes to it")
        };
        match flock(&self.file, operation) {
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::new(
                Code::FileIo,
                format!("disk {} {problem}", self.path.display()),
            )
            .with_hint(
                "a disk of mode \"direct\" belongs to one machine, and to no fork beside it: close \
                 that one, copy the image, or use mode = \"overlay\" for all",
            )
            .with_detail("path", self.path.display().to_string())),
            // A file system without locks leaves it to the user.
            _ => Ok(()),
        }
    }

    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        match &self.qcow2 {
            Some(qcow2) => qcow2.read(offset, bytes),
            None => self.file.read_exact_at(bytes, offset),
        }
    }

    /// The ranges outside of which all is zero.
    pub(super) fn data(&self) -> io::Result<Vec<Range<u64>>> {
        if let Some(qcow2) = &self.qcow2 {
            return qcow2.data();
        }
        // What is missing would pass for a hole.
        if length(&self.file)?.is_none_or(|length| length < self.length) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the image has shrunk"));
        }
        extents(&self.file, self.length)
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    /// Gives back the room of a range, where the file system can.
    pub(super) fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.punch(offset, length).map(drop)
    }

    /// Makes a range read as zeroes.
    pub(super) fn write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
        if self.punch(offset, length)? {
            return Ok(());
        }
        let (mut position, end) = (offset, offset + length);
        while position < end {
            let count =
                usize::try_from(end - position).map_or(ZEROES.len(), |rest| rest.min(ZEROES.len()));
            self.write(position, &ZEROES[..count])?;
            position += count as u64;
        }
        Ok(())
    }

    /// Makes a range of the file a hole, which reads as zeroes; whether the file system can.
    #[cfg(target_os = "linux")]
    fn punch(&self, offset: u64, length: u64) -> io::Result<bool> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, flags, offset, length) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "as on Linux")]
    fn punch(&self, _: u64, _: u64) -> io::Result<bool> {
        Ok(false)
    }

    pub(super) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The length of a file or a block device; `None` of anything else.
fn length(mut file: &File) -> io::Result<Option<u64>> {
    let metadata = file.metadata()?;
    if metadata.is_file() {
        Ok(Some(metadata.len()))
    } else if metadata.file_type().is_block_device() {
        file.seek(SeekFrom::End(0)).map(Some)
    } else {
        Ok(None)
    }
}

fn open_error(path: &Path, writable: bool, error: io::Error) -> Error {
    let (code, hint) = match error.kind() {
        io::ErrorKind::NotFound => (Code::FileNotFound, "check the path"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem if writable => {
            (Code::FilePermission, "mode = \"overlay\" or readonly = true leave the image as it is")
        }
        io::ErrorKind::PermissionDenied => (Code::FilePermission, "check the file's permissions"),
        _ => (Code::FileIo, "a disk is a raw image"),
    };
    Error::new(code, format!("disk {} cannot be opened", path.display()))
        .with_hint(hint)
        .with_detail("path", path.display().to_string())
        .with_source(error)
}
