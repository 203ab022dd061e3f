//! The client of the guest's agent: exec, readiness, shutdown.
//!
//! | module | holds |
//! | --- | --- |
//! | [`request`] | what to run and how it ended: [`ExecRequest`], [`ExecResult`] |
//! | [`process`] | a running command whose output is streamed: [`Process`], [`ProcessInput`] |
//! | `client` | the client of one machine's agent, as the machine uses it |
//! | `shared` | what commands share: connections, ids, lives |
//! | [`files`] | files to and from the guest: [`FileOptions`] |
//! | `exchange` | a request that owns its connection |
//! | `command` | a command from its first write to its exit |
//! | `connection` | a vsock stream that carries frames |
//! | `control` | the control connection, and the task that reads it |
//! | `pool` | command connections that wait for the next command |
//! | `observed` | what a wait in the guest saw last |
//! | `memory` | what a snapshot remembers of the connections |
//! | `life` | epochs, and the frame that tells a guest that it woke up in another |
//! | `failure` | errors of the guest and of its connections, as people see them |
//!
//! # Connections
//! The guest dials the host's port 1024 and announces itself; commands travel on connections that
//! the host opens to the guest's port 1024 and keeps. In the steady state a command is one write
//! and a few reads on a stream that is already open: no task is spawned for it, and no timer is
//! armed unless it has a timeout.

mod client;
mod command;
mod connection;
mod control;
mod exchange;
mod failure;
pub mod files;
mod life;
mod memory;
mod observed;
mod pool;
pub mod process;
pub mod request;
mod shared;

pub(crate) use client::AgentClient;
pub(crate) use failure::seconds;
pub use files::FileOptions;
pub(crate) use memory::Memo;
pub(crate) use observed::Observed;
pub use process::{Output, Process, ProcessInput};
pub use request::{ExecRequest, ExecResult};
