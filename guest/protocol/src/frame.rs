//! The header, the kinds of frames, and the incremental decoder.

use alloc::vec::Vec;
use core::fmt;

use crate::{HEADER_LEN, MAX_PAYLOAD};

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $value:literal,)*) => {
        /// What a frame says. Values below `0x80` go from host to guest, the others back.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Kind {
            $($(#[$doc])* $variant = $value,)*
        }

        impl Kind {
            /// The kind with this value, if this version knows it.
            pub const fn from_value(value: u16) -> Option<Self> {
                match value {
                    $($value => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// Control or command connection: the guest woke up in another life (restore, fork, load).
    /// Payload: [`crate::message::Life`], 48 bytes. On the control connection the guest answers
    /// [`Kind::LifeDone`]; ahead of [`Kind::Exec`] on a command connection it is applied before the
    /// command and not answered.
    Life = 0x01,
    /// Control: power off (payload byte 0) or reboot (1). Answered by [`Kind::Done`], then done.
    Shutdown = 0x02,
    /// Control: wait for something in the guest. Payload: [`crate::watch::Watch`]. Answered by
    /// [`Kind::Done`] when it is true; what is seen until then is told by [`Kind::Observed`].
    Watch = 0x03,
    /// Control: stop waiting for the request with this id. Not answered.
    Unwatch = 0x04,
    /// Command: run a program. Payload: [`crate::message::Exec`].
    Exec = 0x10,
    /// Command: bytes for standard input; an empty payload closes it.
    Stdin = 0x11,
    /// Command: send a signal to the program's process group. Payload: `i32`.
    Signal = 0x12,
    /// Command: the terminal has another size. Payload: [`crate::message::TerminalSize`].
    Resize = 0x13,
    /// Files: take a tree of files. Payload: [`crate::files::Store`]; the tree follows. Answered by
    /// [`Kind::Done`] once it is in its place.
    Store = 0x20,
    /// Files: send a tree of files. Payload: [`crate::files::Fetch`]. Answered by the tree, then
    /// [`Kind::Done`].
    Fetch = 0x21,
    /// Files: an entry of a tree that the host sends. Payload: [`crate::files::Entry`].
    StoreEntry = 0x22,
    /// Files: bytes of the file that was entered. Payload: see [`crate::files::Piece`].
    StoreData = 0x23,
    /// Files: the directory that was entered last is complete.
    StoreLeave = 0x24,
    /// Control: the agent serves. Payload: [`crate::message::Ready`].
    Ready = 0x81,
    /// Control: [`Kind::Life`] was applied. Payload: the epoch, `u64`.
    LifeDone = 0x82,
    /// Any: the request succeeded; for [`Kind::Watch`], what was waited for came true.
    Done = 0x83,
    /// Any: the request failed. Payload: [`crate::message::Failure`].
    Error = 0x84,
    /// Control: something that people should know, as UTF-8 text.
    Log = 0x85,
    /// Control: what a [`Kind::Watch`] sees, which is not yet what is waited for: one line of UTF-8
    /// text, at first and whenever it changes.
    Observed = 0x86,
    /// Command: bytes from standard output.
    Stdout = 0x90,
    /// Command: bytes from standard error.
    Stderr = 0x91,
    /// Command: the program ended. Payload: [`crate::message::Exit`], 16 bytes.
    Exit = 0x92,
    /// Files: as [`Kind::StoreEntry`], of a tree that the guest sends.
    FetchEntry = 0xa2,
    /// Files: as [`Kind::StoreData`].
    FetchData = 0xa3,
    /// Files: as [`Kind::StoreLeave`].
    FetchLeave = 0xa4,
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the payload in bytes.
    pub length: u32,
    /// The kind as sent; see [`Kind::from_value`].
    pub kind: u16,
    /// The request that this belongs to.
    pub id: u64,
}

impl Header {
    /// The header as sent.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.kind.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.id.to_le_bytes());
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`FrameError`] when the length is over [`MAX_PAYLOAD`] or the flags are not zero.
    pub fn from_bytes(bytes: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let flags = u16::from_le_bytes([bytes[6], bytes[7]]);
        if length as usize > MAX_PAYLOAD {
            return Err(FrameError::TooLong(length));
        }
        if flags != 0 {
            return Err(FrameError::Flags(flags));
        }
        Ok(Self {
            length,
            kind: u16::from_le_bytes([bytes[4], bytes[5]]),
            id: u64::from_le_bytes([
                bytes[8], bytes[9], bytes[10], bytes[11], bytes[12], bytes[13], bytes[14],
                bytes[15],
            ]),
        })
    }
}

/// Bytes that are not a frame. The connection cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The payload's length is over [`MAX_PAYLOAD`].
    TooLong(u32),
    /// Flags that this version does not know.
    Flags(u16),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(length) => {
                write!(f, "a frame of {length} bytes is over the limit of {MAX_PAYLOAD}")
            }
            Self::Flags(flags) => write!(f, "a frame with unknown flags {flags:#x}"),
        }
    }
}

impl core::error::Error for FrameError {}

/// A whole frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The kind as sent; see [`Kind::from_value`].
    pub kind: u16,
    /// The request that this belongs to.
    pub id: u64,
    /// The payload.
    pub payload: Vec<u8>,
}

/// Appends a frame to `out`.
///
/// # Panics
/// When the payload is longer than [`MAX_PAYLOAD`]: the caller cuts.
pub fn encode(out: &mut Vec<u8>, kind: Kind, id: u64, payload: &[u8]) {
    encode_parts(out, kind, id, payload, &[]);
}

/// The same for a payload in two parts.
///
/// # Panics
/// When the payload is longer than [`MAX_PAYLOAD`]: the caller cuts.
pub fn encode_parts(out: &mut Vec<u8>, kind: Kind, id: u64, first: &[u8], second: &[u8]) {
    let length = first.len() + second.len();
    assert!(length <= MAX_PAYLOAD, "payload of {length} bytes");
    #[allow(clippy::cast_possible_truncation, reason = "at most MAX_PAYLOAD")]
    let header = Header { length: length as u32, kind: kind as u16, id };
    out.extend_from_slice(&header.to_bytes());
    out.extend_from_slice(first);
    out.extend_from_slice(second);
}

/// Turns bytes, however they are cut, into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    consumed: usize,
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes as they arrive.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.consumed == self.buffer.len() {
            self.buffer.clear();
            self.consumed = 0;
        } else if self.consumed > MAX_PAYLOAD {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether every byte has been taken out as part of a frame.
    pub fn is_empty(&self) -> bool {
        self.consumed == self.buffer.len()
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// [`FrameError`]; the stream cannot be read any further.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let pending = &self.buffer[self.consumed..];
        let Some(header) = pending.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let header = Header::from_bytes(header)?;
        let end = HEADER_LEN + header.length as usize;
        let Some(payload) = pending.get(HEADER_LEN..end) else {
            return Ok(None);
        };
        let frame = Frame { kind: header.kind, id: header.id, payload: payload.to_vec() };
        self.consumed += end;
        Ok(Some(frame))
    }
}
