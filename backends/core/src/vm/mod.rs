//! A machine with its agent, console and snapshot tree, as scripts see it.
//!
//! | module | holds |
//! | --- | --- |
//! | [`host`] | [`Host`]: makes machines and knows those that live |
//! | `choice` | which backend a machine gets, and why |
//! | `check` | what a spec must fulfil before anything starts |
//! | `names` | names that are unique among the live machines |
//! | [`machine`] | [`Vm`]: identity, state and life cycle |
//! | `waiting` | waits for states and for readiness |
//! | `stopping` | the graceful stop and its end by force |
//! | `commands` | exec, spawn and watches, by way of the agent |
//! | `files` | files to and from the guest |
//! | `traffic` | vsock, console and balloon |
//! | `disks` | disks as the guest sees them, written to images |
//! | `faulting` | faults, checked against the spec |
//! | [`snapshot`] | [`Snapshot`], and how to name one |
//! | `transcript` | what a machine was asked for: [`Transcript`] |
//! | `tree` | taking, restoring and deleting snapshots |
//! | `forking` | new machines from a snapshot |
//! | `room` | memory that hosts share: [`Room`] |
//! | [`saving`] | snapshots on their way to a directory and back |

mod check;
mod choice;
mod commands;
mod disks;
#[cfg(test)]
mod fake;
mod faulting;
mod files;
mod forking;
pub mod host;
pub mod machine;
mod names;
mod room;
pub mod saving;
pub mod snapshot;
mod stopping;
#[cfg(test)]
mod tests;
mod traffic;
mod transcript;
mod tree;
mod waiting;

pub use crate::agent::{ExecRequest, ExecResult, FileOptions, Output, Process, ProcessInput};
pub use crate::backend::{
    BalloonLevel, BalloonStatistics, MachineInfo, RestoreReport, SnapshotFigures, Status,
};
pub use host::Host;
pub use machine::Vm;
pub use room::{Place, Room};
pub use snapshot::{RestoreOptions, Snapshot, SnapshotSelector};
pub use stopping::StopOutcome;
pub use transcript::Transcript;
pub use vmoon_protocol::message::TerminalSize;
