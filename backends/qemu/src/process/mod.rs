//! A QEMU process and what can be reached of it.

pub(crate) mod program;
pub(crate) mod qmp;
mod seccomp;
mod spawn;

pub(crate) use spawn::{Process, Reach};
