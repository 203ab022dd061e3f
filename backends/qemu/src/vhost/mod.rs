//! The vsock device of `vmoon-virtio` behind QEMU's vhost interface, whose calls
//! [`crate::process`] hands to this process.

mod calls;
mod device;

pub(crate) use device::Vhost;
