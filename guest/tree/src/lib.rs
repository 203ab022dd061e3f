//! Trees of files between a file system and the frames that carry them: the same code at both ends
//! of a copy, in the guest's agent and on the host.
//!
//! | module | holds |
//! | --- | --- |
//! | [`reader`] | [`Reader`]: a tree as pieces, one at a time |
//! | [`writer`] | [`Writer`]: pieces as a tree, which appears in its place at one moment |
//! | `destination` | where a tree goes: as `cp -a` has it |
//! | `stage` | the temporary name under which a tree grows |
//! | [`failure`] | what goes wrong, with a code of the Lua API |
//!
//! # What is copied
//! Files, directories and symbolic links, with their permission bits and the date of their last
//! change. The holes of a sparse file are neither sent nor written. A symbolic link stays one,
//! except that a source that is itself one is followed. Hard links become files of their own; FIFOs,
//! sockets and devices are refused. What is written belongs to whoever writes it.
//!
//! # Who is trusted
//! Nobody. A name that a piece bears is one component of a path, and the writer descends only into
//! directories that it has just made itself, so that no sequence of pieces reaches outside of the
//! tree. Set-user-ID and set-group-ID bits do not come from the guest to the host.

#![allow(
    clippy::unnecessary_debug_formatting,
    reason = "paths hold any bytes; messages show them quoted and escaped"
)]

mod destination;
pub mod failure;
pub mod reader;
mod stage;
pub mod writer;

pub use destination::Destination;
pub use failure::Place;
pub use reader::Reader;
pub use writer::Writer;
