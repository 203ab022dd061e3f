//! A machine: the thread that owns it, and the handle through which others ask things of it.
//!
//! The thread is the machine's event loop: it waits for commands, kicked queues, host-side work of
//! devices and the endings of vCPUs, and serves them one after the other. So a snapshot needs no
//! lock: the thread parks the vCPUs, and nobody else touches the devices.

pub(crate) mod actor;
pub(crate) mod birth;
pub(crate) mod boot;
pub(crate) mod command;
pub(crate) mod events;
pub(crate) mod faults;
pub(crate) mod handle;
pub(crate) mod snapshots;
pub(crate) mod spare;
