//! A tree as pieces, one at a time.

use std::fs::{self, File, Metadata, OpenOptions, ReadDir};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use vmoon_protocol::files::{Entry, MAX_DATA, MAX_DEPTH, Node, Piece};
use vmoon_protocol::message::Failure;

use crate::failure::Place;

/// The unit of `st_blocks`.
const BLOCK: u64 = 512;

/// Reads a tree. Memory is one buffer, and a descriptor for each directory that is open.
#[derive(Debug)]
pub struct Reader {
    place: Place,
    root: Option<Root>,
    directories: Vec<Listing>,
    file: Option<Open>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Root {
    path: PathBuf,
    metadata: Metadata,
}

#[derive(Debug)]
struct Listing {
    path: PathBuf,
    entries: ReadDir,
}

/// A file that is being read.
#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    offset: u64,
    /// For a file with holes, where the data at the offset ends, and the file.
    sparse: Option<Sparse>,
}

#[derive(Debug)]
struct Sparse {
    data_end: u64,
    size: u64,
}

impl Reader {
    /// A reader of the tree at `path`, which is followed when it is a symbolic link.
    ///
    /// # Errors
    /// `file.*`
    pub fn tree(path: &Path, place: Place) -> Result<Self, Failure> {
        let metadata = fs::metadata(path).map_err(|error| place.failure(&error, path, "read"))?;
        if !metadata.is_dir() && !metadata.is_file() {
            return Err(place.special(path));
        }
        Ok(Self {
            place,
            root: Some(Root { path: path.to_owned(), metadata }),
            directories: Vec::new(),
            file: None,
            buffer: vec![0; MAX_DATA],
        })
    }

    /// A reader of one file's bytes, without gaps.
    ///
    /// # Errors
    /// `file.is_directory`, and other `file.*`.
    pub fn contents(path: &Path, place: Place) -> Result<Self, Failure> {
        let mut reader = Self::tree(path, place)?;
        if reader.root.take().is_some_and(|root| root.metadata.is_dir()) {
            return Err(place.is_directory(path));
        }
        let open = Open::new(path, OFlags::empty());
        let open = open.map_err(|error| place.failure(&error, path, "read"))?;
        reader.file = Some(Open { sparse: None, ..open });
        Ok(reader)
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    /// `file.*`. The reader is of no more use then.
    pub fn next_piece(&mut self) -> Result<Option<Piece<'_>>, Failure> {
        if let Some(root) = self.root.take() {
            return self.enter(root.path, Vec::new(), &root.metadata, OFlags::empty()).map(Some);
        }
        if self.file.is_some() {
            return self.data().map(Some);
        }
        let Some(directory) = self.directories.last_mut() else {
            return Ok(None);
        };
        let Some(found) = directory.entries.next() else {
            self.directories.pop();
            return Ok(Some(Piece::Leave));
        };
        let path = &directory.path;
        let found = found.map_err(|error| self.place.failure(&error, path, "listed"))?;
        let path = found.path();
        // Of the entry itself: this follows no link.
        let metadata =
            found.metadata().map_err(|error| self.place.failure(&error, &path, "read"))?;
        let name = found.file_name().into_vec();
        self.enter(path, name, &metadata, OFlags::NOFOLLOW).map(Some)
    }

    fn enter(
        &mut self,
        path: PathBuf,
        name: Vec<u8>,
        metadata: &Metadata,
        flags: OFlags,
    ) -> Result<Piece<'_>, Failure> {
        let failed = |error: io::Error| self.place.failure(&error, &path, "read");
        let node = if metadata.is_file() {
            Node::File
        } else if metadata.is_dir() {
            Node::Directory
        } else if metadata.is_symlink() {
            let link = fs::read_link(&path).map_err(failed)?;
            Node::Symlink(link.as_os_str().as_bytes().to_vec())
        } else {
            return Err(self.place.special(&path));
        };
        let size = if node == Node::File { metadata.len() } else { 0 };
        let entry = Entry {
            name,
            mode: Some(metadata.mode() & 0o7777),
            modified_ns: metadata
                .mtime()
                .checked_mul(1_000_000_000)
                .and_then(|seconds| seconds.checked_add(metadata.mtime_nsec())),
            size,
            node,
        };
        match entry.node {
            Node::File => self.file = Some(Open::new(&path, flags).map_err(failed)?),
            Node::Directory if self.directories.len() >= MAX_DEPTH => {
                return Err(self.place.too_deep(&path));
            }
            Node::Directory => {
                let entries = fs::read_dir(&path).map_err(failed)?;
                self.directories.push(Listing { path, entries });
            }
            Node::Symlink(_) => {}
        }
        Ok(Piece::Entry(entry))
    }

    fn data(&mut self) -> Result<Piece<'_>, Failure> {
        let Some(open) = &mut self.file else { return Ok(Piece::Leave) };
        let read = open.read(&mut self.buffer);
        let count = read.map_err(|error| self.place.failure(&error, &open.path, "read"))?;
        let offset = open.offset;
        open.offset += count as u64;
        if count == 0 {
            self.file = None;
        }
        Ok(Piece::Data { offset, bytes: &self.buffer[..count] })
    }
}

impl Open {
    fn new(path: &Path, flags: OFlags) -> io::Result<Self> {
        // Somebody may have put a FIFO or a link in its place meanwhile: that is an error, and no
        // wait for a writer.
        let flags = flags | OFlags::NONBLOCK;
        let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not what it was a moment ago"));
        }
        let has_holes = metadata.blocks() * BLOCK < metadata.len();
        let sparse = has_holes.then_some(Sparse { data_end: 0, size: metadata.len() });
        Ok(Self { file, path: path.to_owned(), offset: 0, sparse })
    }

    /// Reads at the offset, which moves beyond a hole; at the end none.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut most = buffer.len();
        if let Some(sparse) = &mut self.sparse {
            if self.offset >= sparse.data_end {
                let Some((start, end)) = next_data(&self.file, self.offset)? else {
                    self.offset = self.offset.max(sparse.size);
                    return Ok(0);
                };
                self.file.seek(SeekFrom::Start(start))?;
                self.offset = start;
                sparse.data_end = end;
            }
            let left = sparse.data_end - self.offset;
            most = most.min(usize::try_from(left).unwrap_or(usize::MAX));
        }
        loop {
            match self.file.read(&mut buffer[..most]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

/// Where the data at or after `offset` begins and ends; none when only a hole follows.
fn next_data(file: &File, offset: u64) -> io::Result<Option<(u64, u64)>> {
    use rustix::fs::SeekFrom;
    let start = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(start) => start,
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
    Ok(Some((start, end)))
}
