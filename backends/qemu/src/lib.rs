//! Machines in QEMU processes, x86-64, for hosts and guests without a usable KVM.
//!
//! # Map
//! | module | holds |
//! | --- | --- |
//! | `backend` | [`QemuBackend`]: what it can do, and how machines begin |
//! | `plan` | what a machine is made of, and QEMU's command line |
//! | `machine` | the thread that owns a machine, its commands, and the handle that others hold |
//! | `process` | a QEMU process: finding, starting, hearing and ending it |
//! | `serve` | what this process serves to QEMU: disks, entropy, consoles |
//! | `vhost` | the vsock device of `vmoon-virtio` behind QEMU's vhost interface |
//! | `memory` | RAM, shared with QEMU, and frozen images of it |
//! | `state` | the state of processors and devices as QEMU saves it |
//! | `snapshot` | frozen machines, forks, and snapshots on disk |
//! | `firmware` | how the built-in guest is entered |
//! | `kernel` | checks a kernel before QEMU is given it |
//!
//! # What is whose
//! QEMU runs the processors and has the transports, the balloon, the console and the interrupt
//! controllers. RAM is a memfd of this process that QEMU maps; vsock, disks and entropy are served
//! from here. So a snapshot is QEMU's own state without RAM, some 100 KiB, which it saves and loads
//! in milliseconds, and what this process holds; memory is kept in images that share what did not
//! change. Nothing of a machine has a name in the file system.
//!
//! # Threads
//! Each machine has one thread that owns it and started its QEMU, which dies with that thread; one
//! that hears QEMU's monitor; and one that serves QEMU. The last never waits for the first.

mod backend;
mod error;
mod firmware;
mod kernel;
mod machine;
mod memory;
mod plan;
mod process;
mod serve;
mod snapshot;
mod state;
mod vhost;

pub use backend::QemuBackend;
