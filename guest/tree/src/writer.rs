//! Pieces as a tree, which appears in its place at one moment.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, FileTimes, Metadata, OpenOptions, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vmoon_protocol::files::{Entry, MAX_DEPTH, Node, Piece};
use vmoon_protocol::message::Failure;

use crate::destination::{Destination, Target, is_component, parent};
use crate::failure::{Place, malformed};
use crate::stage::Stage;

/// The mode of a new file whose sender gives none.
const USUAL_MODE: u32 = 0o644;

/// Writes a tree. Until the last piece is taken nothing is seen of it, and dropping the writer
/// removes what there is.
///
/// What cannot be replaced (a device, a file of `/proc` or `/sys`, one in a directory that may not
/// be written) is written in place instead; in the guest only.
#[derive(Debug)]
pub struct Writer {
    place: Place,
    target: Target,
    /// Whether the path can only be a directory: it ends in a slash.
    wants_directory: bool,
    stage: Option<Stage>,
    /// The directories that are being filled, the root first.
    directories: Vec<Directory>,
    file: Option<Open>,
    complete: bool,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    entry: Entry,
}

/// A file that is being written.
#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    entry: Entry,
    end: u64,
    in_place: bool,
}

impl Writer {
    /// A writer of a tree that goes to `destination`.
    ///
    /// # Errors
    /// `file.*`
    pub fn new(destination: &Destination) -> Result<Self, Failure> {
        let target = destination.resolve()?;
        Ok(Self {
            place: destination.place,
            wants_directory: destination.path.as_os_str().as_bytes().ends_with(b"/")
                && target.path == destination.path,
            target,
            stage: None,
            directories: Vec::new(),
            file: None,
            complete: false,
        })
    }

    /// Whether the whole tree is in its place.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// `file.*`; `agent.unavailable` when the piece does not belong here. The writer is of no
    /// more use then.
    pub fn take(&mut self, piece: Piece<'_>) -> Result<(), Failure> {
        match piece {
            Piece::Entry(entry) => self.enter(entry),
            Piece::Data { offset, bytes } => self.data(offset, bytes),
            Piece::Leave => self.leave(),
        }
    }

    fn enter(&mut self, entry: Entry) -> Result<(), Failure> {
        if self.complete || self.file.is_some() {
            return Err(malformed("an entry within a file"));
        }
        let Some(directory) = self.directories.last() else {
            return self.enter_root(entry);
        };
        if !is_component(&entry.name) {
            return Err(malformed("a name that is a path"));
        }
        let path = directory.path.join(OsStr::from_bytes(&entry.name));
        let failed = |error: io::Error| self.place.failure(&error, &path, "written");
        match &entry.node {
            Node::File => {
                let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
                let file = file.map_err(failed)?;
                self.file = Some(Open { file, path, entry, end: 0, in_place: false });
            }
            Node::Directory if self.directories.len() >= MAX_DEPTH => {
                return Err(self.place.too_deep(&path));
            }
            Node::Directory => {
                DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
                self.directories.push(Directory { path, entry });
            }
            Node::Symlink(link) => {
                std::os::unix::fs::symlink(OsStr::from_bytes(link), &path)
                    .and_then(|()| set_link_time(&path, entry.modified_ns))
                    .map_err(failed)?;
            }
        }
        Ok(())
    }

    fn enter_root(&mut self, entry: Entry) -> Result<(), Failure> {
        if self.stage.is_some() || !entry.name.is_empty() {
            return Err(malformed("a second root, or one with a name"));
        }
        match entry.node {
            Node::File => self.enter_root_file(entry),
            Node::Directory => self.enter_root_directory(entry),
            Node::Symlink(_) => Err(malformed("a root that is a symbolic link")),
        }
    }

    fn enter_root_directory(&mut self, entry: Entry) -> Result<(), Failure> {
        let path = &self.target.path;
        if self.target.existing.is_some() {
            return Err(self.place.failure(&io::ErrorKind::AlreadyExists.into(), path, "written"));
        }
        let stage = Stage::directory(path).map_err(|error| self.parent_failure(&error))?;
        self.directories.push(Directory { path: stage.path().to_owned(), entry });
        self.stage = Some(stage);
        Ok(())
    }

    fn enter_root_file(&mut self, entry: Entry) -> Result<(), Failure> {
        let path = self.target.path.clone();
        let kind = self.target.existing.as_ref().map(Metadata::file_type);
        if kind.is_some_and(|kind| kind.is_dir()) {
            return Err(self.place.is_directory(&path));
        }
        if self.wants_directory {
            let error = io::ErrorKind::NotADirectory.into();
            return Err(self.place.failure(&error, &path, "written"));
        }
        if kind.is_some_and(|kind| kind.is_fifo() || kind.is_socket()) {
            return Err(self.place.special(&path));
        }
        if kind.is_some_and(|kind| kind.is_char_device() || kind.is_block_device()) {
            return self.enter_in_place(entry);
        }
        match Stage::file(&path) {
            Ok((stage, file)) => {
                self.stage = Some(stage);
                self.file = Some(Open { file, path, entry, end: 0, in_place: false });
                Ok(())
            }
            Err(error) if kind.is_some() && !is_full(&error) => self.enter_in_place(entry),
            Err(error) => Err(self.parent_failure(&error)),
        }
    }

    fn enter_in_place(&mut self, entry: Entry) -> Result<(), Failure> {
        let path = self.target.path.clone();
        if self.place == Place::Host {
            let error = io::ErrorKind::PermissionDenied.into();
            return Err(self.place.failure(&error, &path, "replaced"));
        }
        let file = OpenOptions::new().write(true).truncate(true).open(&path);
        let file = file.map_err(|error| self.place.failure(&error, &path, "written"))?;
        self.file = Some(Open { file, path, entry, end: 0, in_place: true });
        Ok(())
    }

    /// Something cannot be made in the directory in which the tree goes.
    fn parent_failure(&self, error: &io::Error) -> Failure {
        let path = &self.target.path;
        match error.kind() {
            io::ErrorKind::NotFound => self.place.failure(error, parent(path), "written"),
            _ => self.place.failure(error, path, "written"),
        }
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        let Some(open) = &mut self.file else {
            return Err(malformed("data outside of a file"));
        };
        if offset < open.end {
            return Err(malformed("data behind what has come"));
        }
        let Some(end) = offset.checked_add(bytes.len() as u64) else {
            return Err(malformed("data beyond the end of all files"));
        };
        let written = if bytes.is_empty() {
            open.set_length(offset)
        } else {
            open.seek(offset).and_then(|()| open.file.write_all(bytes))
        };
        written.map_err(|error| self.place.failure(&error, &open.path, "written"))?;
        open.end = end;
        if bytes.is_empty() { self.end_file() } else { Ok(()) }
    }

    fn end_file(&mut self) -> Result<(), Failure> {
        let Some(open) = self.file.take() else { return Ok(()) };
        let is_root = self.directories.is_empty();
        let ended = if open.in_place {
            Ok(())
        } else if is_root {
            self.end_root_file(&open)
        } else {
            let mode = open.entry.mode.unwrap_or(USUAL_MODE);
            finish(&open.file, mode & self.mode_mask(), open.entry.modified_ns)
        };
        ended.map_err(|error| self.place.failure(&error, &open.path, "written"))?;
        self.complete = is_root;
        Ok(())
    }

    /// The file takes over what it replaces: its mode and, where that may be given, its owner.
    fn end_root_file(&mut self, open: &Open) -> io::Result<()> {
        let existing = self.target.existing.as_ref().filter(|existing| existing.is_file());
        if let Some(existing) = existing {
            let (owner, group) = (Some(existing.uid()), Some(existing.gid()));
            let _ = std::os::unix::fs::fchown(&open.file, owner, group);
        }
        let mode = open.entry.mode.or_else(|| existing.map(Metadata::mode)).unwrap_or(USUAL_MODE);
        finish(&open.file, mode & self.mode_mask(), open.entry.modified_ns)?;
        open.file.sync_all()?;
        self.commit()?;
        // The name is to last as the bytes do; not every file system syncs directories.
        let _ = File::open(parent(&self.target.path)).and_then(|directory| directory.sync_all());
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Failure> {
        let Some(directory) = self.directories.pop().filter(|_| self.file.is_none()) else {
            return Err(malformed("the end of a directory outside of one"));
        };
        let is_root = self.directories.is_empty();
        let mode = directory.entry.mode.unwrap_or(0o755) & self.mode_mask();
        let ended = File::open(&directory.path)
            .and_then(|opened| finish(&opened, mode, directory.entry.modified_ns))
            .and_then(|()| if is_root { self.end_root_directory() } else { Ok(()) });
        ended
            .map_err(|error| self.place.failure(&error, &self.shown(&directory.path), "written"))?;
        self.complete = is_root;
        Ok(())
    }

    fn end_root_directory(&mut self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if self.place == Place::Guest {
            // Once for the whole tree. On the host, copies are worth no wait for the disk.
            rustix::fs::syncfs(File::open(parent(&self.target.path))?)?;
        }
        self.commit()
    }

    fn commit(&mut self) -> io::Result<()> {
        match &mut self.stage {
            Some(stage) => stage.commit(&self.target.path),
            None => Ok(()),
        }
    }

    fn mode_mask(&self) -> u32 {
        if self.place == Place::Host { 0o777 } else { 0o7777 }
    }

    /// A path in the stage as it will be.
    fn shown(&self, path: &Path) -> PathBuf {
        let stage = self.stage.as_ref().map(Stage::path);
        match stage.and_then(|stage| path.strip_prefix(stage).ok()) {
            Some(rest) => self.target.path.join(rest),
            None => path.to_owned(),
        }
    }
}

impl Open {
    fn seek(&mut self, offset: u64) -> io::Result<()> {
        if offset != self.end {
            self.file.seek(SeekFrom::Start(offset))?;
        }
        Ok(())
    }

    /// A hole at the end.
    fn set_length(&mut self, length: u64) -> io::Result<()> {
        if length == self.end { Ok(()) } else { self.file.set_len(length) }
    }
}

/// The last that is done to a file or directory.
fn finish(file: &File, mode: u32, modified_ns: Option<i64>) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode))?;
    match modified_ns {
        None => Ok(()),
        Some(modified_ns) => file.set_times(FileTimes::new().set_modified(time(modified_ns))),
    }
}

/// The standard library sets dates of open files, which a link cannot be.
fn set_link_time(path: &Path, modified_ns: Option<i64>) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};
    let Some(modified_ns) = modified_ns else { return Ok(()) };
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: modified_ns.div_euclid(1_000_000_000),
            tv_nsec: modified_ns.rem_euclid(1_000_000_000),
        },
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)
}

fn time(since_1970_ns: i64) -> SystemTime {
    let distance = Duration::from_nanos(since_1970_ns.unsigned_abs());
    let time = if since_1970_ns < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(UNIX_EPOCH)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_before_1970_are_dates() {
        assert_eq!(time(-1_500_000_000), UNIX_EPOCH - Duration::from_millis(1500));
        assert_eq!(time(2_000_000_000), UNIX_EPOCH + Duration::from_secs(2));
    }
}
