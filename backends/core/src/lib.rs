//! What a machine is, independent of the hypervisor that runs it.
//!
//! # Map
//! | module | holds |
//! | --- | --- |
//! | [`units`] | newtypes that must not be mixed: [`Bytes`], [`Cid`], [`VsockPort`], [`MachineId`], [`SnapshotId`], and the parsers for sizes and durations |
//! | [`error`] | the one structured [`Error`]: code, message, hint, details |
//! | [`spec`] | what a machine should be: [`MachineSpec`] and the resolved [`BootSource`] |
//! | [`lifecycle`] | [`State`] and the legal order of operations |
//! | [`backend`] | the traits that a hypervisor implements: [`Backend`], [`Machine`], [`SnapshotImage`] |
//! | [`capabilities`] | what a backend can do here, and why not |
//! | [`refusal`] | what every backend says no to, in the same words |
//! | [`vsock`] | streams and listeners between host and guest |
//! | [`console`] | all that a guest printed, with waiters |
//! | `race` | waiting for what can no longer come once the machine has ended |
//! | [`registry`] | the CIDs that the live machines of this process hold |
//! | [`agent`] | the client of the guest's agent: exec, readiness, shutdown |
//! | [`faults`] | what can be broken on purpose |
//! | [`guest`] | finds kernels and assembles initramfs images |
//! | [`disk`] | images of disks: writing what a guest sees to one, telling formats apart |
//! | [`saved`] | snapshots on disk: manifest, parts, atomic writing, checking |
//! | [`vm`] | [`Host`] and [`Vm`]: a machine with its agent, console and snapshot tree, as scripts see it |
//!
//! The arrows point here: `vmoon-lua` and the backends depend on this crate, never the other
//! way round.

pub mod agent;
pub mod backend;
pub mod capabilities;
pub mod console;
pub mod disk;
pub mod error;
pub mod faults;
pub mod guest;
pub mod lifecycle;
mod race;
pub mod refusal;
pub mod registry;
pub mod saved;
pub mod spec;
pub mod units;
pub mod vm;
pub mod vsock;

pub use backend::{Backend, Fact, Machine, SnapshotImage};
pub use capabilities::{Capabilities, Capability};
pub use console::Console;
pub use error::{Code, Error, Result};
pub use lifecycle::State;
pub use spec::{BootSource, MachineSpec};
pub use units::{Bytes, Cid, GuestAddress, MachineId, SnapshotId, VsockPort};
pub use vm::{Host, Vm};
