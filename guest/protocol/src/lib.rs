//! Frames spoken between the host and the agent in a guest, over vsock.
//!
//! # Connections
//! The guest opens one **control** connection to the host's port [`AGENT_PORT`] and announces
//! itself with [`Kind::Ready`]: nobody polls. The host opens **command** connections to the guest's
//! port [`AGENT_PORT`]; a command owns its connection from [`Kind::Exec`] to [`Kind::Exit`] (or
//! [`Kind::Error`]), and files from [`Kind::Store`] or [`Kind::Fetch`] to [`Kind::Done`], after which
//! the connection is free for the next command. So a command in the
//! steady state costs one round trip and no connection set-up, and each command has vsock's own
//! flow control.
//!
//! # Frames
//! A frame is a header of [`HEADER_LEN`] bytes and a payload, little-endian:
//! ```text
//!  0        4      6       8                16
//!  | length | kind | flags | id             | payload (length bytes) …
//! ```
//! `length` counts the payload alone and is at most [`MAX_PAYLOAD`]. `flags` is zero. `id` is
//! chosen by the host for each request and repeated in every answer to it; frames with an id that
//! the receiver does not know are ignored: they belong to a life that a restore undid.
//!
//! | module | holds |
//! | --- | --- |
//! | [`frame`] | the header, kinds, and the incremental [`frame::Decoder`] |
//! | [`fields`] | tagged fields, the payload of structured frames |
//! | [`message`] | the typed messages: [`message::Exec`], [`message::Exit`], … |
//! | [`files`] | trees of files on their way: [`files::Store`], [`files::Fetch`], [`files::Piece`] |
//! | [`watch`] | what the guest can be asked to wait for: [`watch::Watch`] |
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod fields;
pub mod files;
pub mod frame;
pub mod message;
pub mod watch;

pub use frame::{Frame, Header, Kind};

/// The vsock port of the agent, on both sides.
pub const AGENT_PORT: u32 = 1024;
/// The version of this protocol, announced in [`Kind::Ready`].
pub const VERSION: u32 = 1;
/// The length of a frame's header in bytes.
pub const HEADER_LEN: usize = 16;
/// The longest payload in bytes. Output and input are cut into frames of at most this size.
pub const MAX_PAYLOAD: usize = 64 * 1024;
