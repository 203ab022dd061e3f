//! QEMU's own state of a machine, kept in files in memory.

mod container;
mod section;

pub(crate) use container::{Container, TAG};
