//! One KVM virtual machine: its memory slots, interrupt controllers, vCPUs and devices, and the
//! state of it all.

pub(crate) mod build;
pub(crate) mod devices;
pub(crate) mod hardware;
pub(crate) mod host;
pub(crate) mod plan;
pub(crate) mod shell;
pub(crate) mod state;
