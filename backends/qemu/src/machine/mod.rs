//! A machine: the thread that owns it, its QEMU process, and the handle that others hold.

mod actor;
mod balloon;
pub(crate) mod birth;
mod boot;
mod command;
mod events;
mod handle;
mod monitor;
mod snapshots;
