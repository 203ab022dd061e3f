//! Trees of files on their way: one file, or a directory with all that is in it.
//!
//! A tree is a sequence of [`Piece`]s, in depth-first order. An entry of a file is followed by its
//! data up to an empty piece, which tells the file's length; an entry of a directory by its entries
//! up to [`Piece::Leave`]; a symbolic link stands alone. The first entry is the tree's root and has
//! no name. So a receiver needs memory for one piece and for the depth, whatever the tree holds.

use alloc::vec::Vec;

use crate::fields::{self, Truncated};
use crate::frame::{self, Kind};
use crate::{HEADER_LEN, MAX_PAYLOAD};

/// The most bytes of a file in one piece: with both headers they fill a vsock packet of 64 KiB.
pub const MAX_DATA: usize = MAX_PAYLOAD - HEADER_LEN - OFFSET_LEN;

/// How many directories may lie in one another; each costs both ends something while it is open.
pub const MAX_DEPTH: usize = 256;

/// The offset at the start of a piece of data.
const OFFSET_LEN: usize = 8;

/// Tags of the fields in this module.
mod tag {
    pub(super) const PATH: u16 = 1;
    pub(super) const NAME: u16 = 2;
    pub(super) const PARENTS: u16 = 3;
    pub(super) const CONTENTS: u16 = 4;
    pub(super) const NODE: u16 = 5;
    pub(super) const LINK: u16 = 6;
    pub(super) const MODE: u16 = 7;
    pub(super) const MODIFIED: u16 = 8;
    pub(super) const SIZE: u16 = 9;
}

/// Where a tree goes: the payload of [`Kind::Store`], as fields.
///
/// | tag | field | value |
/// | --- | --- | --- |
/// | 1 | path | bytes |
/// | 2 | name: where the path is a directory, the tree goes into it under this name | bytes |
/// | 3 | parents: directories that are missing above the path are made | `u8`: 1 |
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store {
    /// The path in the guest.
    pub path: Vec<u8>,
    /// The tree's name within the path, where that is a directory; without it, it may be none.
    pub name: Option<Vec<u8>>,
    /// Whether missing directories above the path are made.
    pub parents: bool,
}

impl Store {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        fields::put(&mut out, tag::PATH, &self.path);
        if let Some(name) = &self.name {
            fields::put(&mut out, tag::NAME, name);
        }
        if self.parents {
            fields::put(&mut out, tag::PARENTS, &[1]);
        }
        out
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Truncated`] when a field is cut short.
    pub fn decode(payload: &[u8]) -> Result<Self, Truncated> {
        let mut store = Self::default();
        for field in fields::iter(payload) {
            match field? {
                (tag::PATH, value) => store.path = value.to_vec(),
                (tag::NAME, value) => store.name = Some(value.to_vec()),
                (tag::PARENTS, value) => store.parents = value.first() == Some(&1),
                _ => {}
            }
        }
        Ok(store)
    }
}

/// Which tree is wanted: the payload of [`Kind::Fetch`], as fields.
///
/// | tag | field | value |
/// | --- | --- | --- |
/// | 1 | path | bytes |
/// | 4 | contents: one file's bytes without gaps; a directory is refused | `u8`: 1 |
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetch {
    /// The path in the guest. A symbolic link is followed.
    pub path: Vec<u8>,
    /// Whether one file's bytes are wanted, without gaps.
    pub contents: bool,
}

impl Fetch {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        fields::put(&mut out, tag::PATH, &self.path);
        if self.contents {
            fields::put(&mut out, tag::CONTENTS, &[1]);
        }
        out
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Truncated`] when a field is cut short.
    pub fn decode(payload: &[u8]) -> Result<Self, Truncated> {
        let mut fetch = Self::default();
        for field in fields::iter(payload) {
            match field? {
                (tag::PATH, value) => fetch.path = value.to_vec(),
                (tag::CONTENTS, value) => fetch.contents = value.first() == Some(&1),
                _ => {}
            }
        }
        Ok(fetch)
    }
}

/// A file, a directory or a symbolic link, as fields.
///
/// | tag | field | value |
/// | --- | --- | --- |
/// | 2 | name in its directory; none for the root | bytes |
/// | 5 | node | `u8`: 1 file, 2 directory, 3 symbolic link |
/// | 6 | what a symbolic link says | bytes |
/// | 7 | permission bits | `u32` |
/// | 8 | modified, nanoseconds since 1970 | `i64` |
/// | 9 | size in bytes, for people: the data tells how many there are | `u64` |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the directory that was entered last; empty for the root.
    pub name: Vec<u8>,
    /// What it is.
    pub node: Node,
    /// Its permission bits; without them, those of the file that it replaces, or the usual ones.
    pub mode: Option<u32>,
    /// When it was modified, in nanoseconds since 1970.
    pub modified_ns: Option<i64>,
    /// How many bytes there will be, as far as the sender knows.
    pub size: u64,
}

/// What an [`Entry`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, and what it says.
    Symlink(Vec<u8>),
}

impl Entry {
    /// A file without a name, date or mode.
    pub const fn file(size: u64) -> Self {
        Self { name: Vec::new(), node: Node::File, mode: None, modified_ns: None, size }
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        fields::put(&mut out, tag::NAME, &self.name);
        let node = match &self.node {
            Node::File => 1,
            Node::Directory => 2,
            Node::Symlink(link) => {
                fields::put(&mut out, tag::LINK, link);
                3
            }
        };
        fields::put(&mut out, tag::NODE, &[node]);
        if let Some(mode) = self.mode {
            fields::put(&mut out, tag::MODE, &mode.to_le_bytes());
        }
        if let Some(modified) = self.modified_ns {
            fields::put(&mut out, tag::MODIFIED, &modified.to_le_bytes());
        }
        fields::put(&mut out, tag::SIZE, &self.size.to_le_bytes());
        out
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Truncated`] when a field is cut short, or there is no known kind of node.
    pub fn decode(payload: &[u8]) -> Result<Self, Truncated> {
        let mut entry = Self::file(0);
        let mut node = 0;
        let mut link = Vec::new();
        for field in fields::iter(payload) {
            match field? {
                (tag::NAME, value) => entry.name = value.to_vec(),
                (tag::NODE, value) => node = *value.first().ok_or(Truncated)?,
                (tag::LINK, value) => link = value.to_vec(),
                (tag::MODE, value) => entry.mode = Some(u32::from_le_bytes(exact(value)?)),
                (tag::MODIFIED, value) => {
                    entry.modified_ns = Some(i64::from_le_bytes(exact(value)?));
                }
                (tag::SIZE, value) => entry.size = u64::from_le_bytes(exact(value)?),
                _ => {}
            }
        }
        entry.node = match node {
            1 => Node::File,
            2 => Node::Directory,
            3 => Node::Symlink(link),
            _ => return Err(Truncated),
        };
        Ok(entry)
    }
}

fn exact<const N: usize>(value: &[u8]) -> Result<[u8; N], Truncated> {
    value.try_into().map_err(|_| Truncated)
}

/// A step through a tree; each is a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The next entry, the root first.
    Entry(Entry),
    /// Bytes of the file that was entered: the payload is the offset, `u64`, and then the bytes.
    /// What lies between two pieces is a hole. No bytes end the file at the offset.
    Data {
        /// Where they belong in the file.
        offset: u64,
        /// At most [`MAX_DATA`].
        bytes: &'a [u8],
    },
    /// The directory that was entered last is complete.
    Leave,
}

/// Who sends a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The host: [`Kind::StoreEntry`] and so on.
    Host,
    /// The guest: [`Kind::FetchEntry`] and so on.
    Guest,
}

impl Piece<'_> {
    /// Appends the frame of this piece to `out`.
    ///
    /// # Panics
    /// When the payload is longer than [`MAX_PAYLOAD`]; a path is at most 4096 bytes on Linux.
    pub fn encode(&self, out: &mut Vec<u8>, sender: Sender, id: u64) {
        let kind = |host, guest| if sender == Sender::Host { host } else { guest };
        match self {
            Self::Entry(entry) => {
                let kind = kind(Kind::StoreEntry, Kind::FetchEntry);
                frame::encode(out, kind, id, &entry.encode());
            }
            Self::Data { offset, bytes } => {
                let kind = kind(Kind::StoreData, Kind::FetchData);
                frame::encode_parts(out, kind, id, &offset.to_le_bytes(), bytes);
            }
            Self::Leave => frame::encode(out, kind(Kind::StoreLeave, Kind::FetchLeave), id, &[]),
        }
    }
}

impl<'a> Piece<'a> {
    /// The piece that a frame is; none for frames of other kinds.
    ///
    /// # Errors
    /// [`Truncated`] when its payload is cut short.
    pub fn decode(kind: u16, payload: &'a [u8]) -> Result<Option<Self>, Truncated> {
        Ok(match Kind::from_value(kind) {
            Some(Kind::StoreEntry | Kind::FetchEntry) => Some(Self::Entry(Entry::decode(payload)?)),
            Some(Kind::StoreData | Kind::FetchData) => {
                let (offset, bytes) = payload.split_first_chunk::<OFFSET_LEN>().ok_or(Truncated)?;
                Some(Self::Data { offset: u64::from_le_bytes(*offset), bytes })
            }
            Some(Kind::StoreLeave | Kind::FetchLeave) => Some(Self::Leave),
            _ => None,
        })
    }
}
