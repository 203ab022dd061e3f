//! The embedded Lua and its bindings: a [`Runtime`] runs one script.
//!
//! Everything of a script happens on one thread: Lua, its tasks, and a tokio runtime that they
//! wait on. Machines live on threads of their own, behind [`vmoon_core::vm`].
//!
//! # Map
//! | module | holds |
//! | --- | --- |
//! | [`runtime`] | [`Runtime`]: starts Lua, runs a script, says how it ended |
//! | [`report`] | what went wrong in a script, and the picture that people see of it |
//! | [`stop`] | what ends a script early: deadlines, signals, `os.exit` |
//! | [`session`] | a conversation with Lua, one chunk after the other; completion, help |
//! | [`types`] | the documentation of the API, from the types for editors |
//! | `prelude` | loads `stdlib/prelude`: coroutines and `require` that may wait |
//! | `class`, `arguments`, `options`, `fault` | how a Rust function becomes one of Lua's: objects, checked arguments, structured errors |
//! | `trace` | where in the script an error comes from |
//! | `module`, `spec`, `capabilities` | the module `vmoon` |
//! | `machine`, `console`, `balloon`, `faults`, `snapshot` | the objects that stand for a machine and its parts |
//! | `process`, `stream`, `listener`, `forward` | the objects that talk to the guest |
//! | `terminal` | the user's terminal, lent to a program of the guest |
//! | `task` | tasks and timeouts |
//! | [`test`] | the module `vmoon.test` |
//!
//! # How an error reaches the script
//! A binding returns `Result<_, Fault>`. The fault becomes a table with the fields of
//! [`vmoon_core::Error`]; a Lua function of the prelude raises it, so that `pcall` gives the
//! table and never userdata. Where it was raised is noted beside the table.

mod arguments;
mod balloon;
mod capabilities;
mod class;
mod console;
mod context;
mod convert;
mod fault;
mod faults;
mod forward;
mod listener;
mod machine;
mod module;
mod options;
mod prelude;
mod process;
pub mod report;
pub mod runtime;
pub mod session;
mod slot;
mod snapshot;
mod spec;
pub mod stop;
mod stream;
mod task;
mod terminal;
pub mod test;
mod trace;
pub mod types;

pub use report::Report;
pub use runtime::{Config, Ending, Runtime, Script};
pub use session::{Evaluation, Session};
pub use stop::Signals;
pub use trace::Frame;
