//! Machines on KVM, x86-64.
//!
//! # Map
//! | module | holds |
//! | --- | --- |
//! | `backend` | [`KvmBackend`]: what KVM can do here, and how machines begin |
//! | `machine` | the thread that owns a machine, its commands, and the handle that others hold |
//! | `vm` | what KVM holds for a machine: memory slots, interrupt controllers, vCPUs, devices |
//! | `vcpu` | the thread of a vCPU, its exits, its state |
//! | `memory` | RAM, the layers beneath it, dirty pages, restore and fork |
//! | `snapshot` | frozen machines and forks |
//! | `transport` | virtio-mmio around the devices of `vmoon-virtio` |
//! | `bus` | where port and MMIO accesses go |
//! | `legacy` | the serial port, power control, clock and panic device on the I/O ports |
//! | `facts` | what explains how well KVM works here, for people |
//! | `boot` | kernels, the physical address space, initial registers, CPUID |
//! | [`floor`] | what the host can do at best, for measurements |
//! | `acpi` | the tables that describe it all to the guest |
//!
//! # Threads
//! Each machine has one thread that serves commands and devices, and one thread for each vCPU. A
//! vCPU's thread touches a device only for register accesses. Snapshots and restores happen on
//! the machine's thread with the vCPUs parked, so they need no further locks.

mod acpi;
mod backend;
mod boot;
mod bus;
mod facts;
pub mod floor;
mod legacy;
mod machine;
mod memory;
mod snapshot;
mod transport;
mod vcpu;
mod vm;

pub use backend::KvmBackend;
