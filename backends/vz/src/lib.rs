//! Machines on Apple's Virtualization.framework, macOS 13 and later.
//!
//! **None of this has run on a Mac yet.** It is type-checked for macOS, and all that is not a call
//! of the framework is tested on Linux, against a framework that pretends.
//!
//! # Map
//! | module | holds |
//! | --- | --- |
//! | [`backend`] | [`VzBackend`]: what the framework can do here, and how machines begin |
//! | [`host`] | the facts about a Mac from which its capabilities follow |
//! | [`plan`] | from a spec to what the framework is asked for, and what it cannot give |
//! | [`framework`] | what is asked of the framework, as traits |
//! | [`machine`] | the thread that owns a machine, its commands, and the handle that others hold |
//! | [`snapshot`] | saved states, in a machine's folder and in a directory of the user's |
//! | [`folder`] | a machine's files: kernel, disks, snapshots |
//! | [`identity`] | no two live machines share an identifier |
//! | `disk` | disks as they were at one moment |
//! | [`console`] | the guest's console through pipes, and panics seen on it |
//! | [`vsock`] | streams, listeners, and connecting with a deadline |
//! | `macos` | the framework itself: the only module that touches Objective-C |
//!
//! # Threads
//! Each machine has one thread, which serves commands one after the other, and one serial dispatch
//! queue, on which every object of the framework lives. The thread puts work on the queue and
//! waits for its completion handler, within a deadline. The queue never waits for the thread.

pub mod backend;
pub mod console;
mod disk;
pub mod folder;
pub mod framework;
pub mod host;
pub mod identity;
pub mod machine;
#[cfg(target_os = "macos")]
mod macos;
pub mod plan;
pub mod snapshot;
pub mod vsock;

pub use backend::VzBackend;
