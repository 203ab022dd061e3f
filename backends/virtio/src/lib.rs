//! Virtio devices, free of any transport or hypervisor.
//!
//! A device is driven by one thread, its owner's event loop: [`Device::process_queue`] when the
//! guest kicked a queue, [`Device::process_host`] when the device's [`HostWaker`] fired. It knows
//! guest memory and its queues; it knows neither registers nor interrupts, which belong to the
//! transport.
//!
//! # Map
//! | module | holds |
//! | --- | --- |
//! | [`device`] | the [`Device`] trait, [`Signals`] to the transport, [`DeviceError`] |
//! | [`state`] | [`DeviceState`]: what a snapshot keeps of each kind of device |
//! | [`memory`] | [`GuestMemory`] and the [`DirtyBitmap`] of what the devices wrote |
//! | [`waker`] | [`HostWaker`]: work for a device appeared on the host's side |
//! | [`faults`] | rules by which a device fails on purpose |
//! | `alarm` | a moment at which a device is woken |
//! | [`ring`] | descriptor chains, walked with every check, and cursors over their buffers |
//! | [`vsock`] | sockets between host and guest, whose idle connections survive a restore |
//! | [`balloon`] | memory that the guest gives back |
//! | [`block`] | raw images, written in place or under an overlay in memory |
//! | [`entropy`] | random bytes, or a seed's for runs that are to be the same |
//! | [`console`] | one port: output to a sink, input from a bounded queue |
//!
//! # Hostile guests
//! Whatever the guest wrote is checked where it is read: indexes against the queue's size, chains
//! against the table's length, buffers against RAM. A violation is a [`DeviceError`]: the
//! transport marks the device as needing a reset and the host goes on.

mod alarm;
pub mod balloon;
pub mod block;
pub mod console;
pub mod device;
pub mod entropy;
pub mod faults;
pub mod memory;
pub mod ring;
pub mod state;
pub mod vsock;
pub mod waker;

pub use device::{Device, DeviceError, DeviceKind, RestoreMode, Signals};
pub use memory::{DirtyBitmap, GuestMemory};
pub use state::DeviceState;
pub use waker::HostWaker;
