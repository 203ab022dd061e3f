//! Runs `vmoon` in a machine whose KVM can run stock Linux.
//!
//! Where the host's KVM can (see [`probe`]), `vmoon` runs directly. Elsewhere a QEMU emulates an
//! AMD processor with SVM; it boots a Linux of the host that loads `kvm-amd`, with an initramfs
//! that holds `vmoon`, the project's scripts and a kernel for the guests, and hands back what
//! `vmoon` printed and its exit status.

pub mod archive;
pub mod command;
pub mod kernel;
pub mod machine;
pub mod probe;
pub mod root;
pub mod supervise;
