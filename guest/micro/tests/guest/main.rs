//! The guest on real KVM, beside a vsock device that the tests drive packet by packet: what a
//! well-behaved host never sends can be tried too.
//!
//! | module | holds |
//! | --- | --- |
//! | `machine` | a virtual machine with one vCPU and the device's registers |
//! | `registers` | virtio-mmio registers |
//! | `ring` | the device's side of a virtqueue |
//! | `vsock` | packets to and from the guest |
//! | `host` | the host's side of the agent's protocol |
//! | `boot`, `commands`, `frames`, `connections`, `services` | the tests |
#![allow(
    clippy::cast_possible_truncation,
    reason = "sizes of a machine of 32 MiB and of packets: all below 2^32"
)]

mod boot;
mod commands;
mod connections;
mod files;
mod frames;
mod host;
mod machine;
mod registers;
mod ring;
mod services;
mod vsock;
