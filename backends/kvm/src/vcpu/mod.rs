//! Virtual CPUs: a thread each, what it does with exits, and its state.
//!
//! A vCPU's file descriptor sits behind a mutex that its thread holds while guest code runs and
//! gives up when it parks; so whoever wants the state of a vCPU must have paused it first, and the
//! type system says so.

pub(crate) mod exits;
pub(crate) mod gate;
pub(crate) mod holds;
pub(crate) mod job;
pub(crate) mod kick;
pub(crate) mod msrs;
pub(crate) mod state;
pub(crate) mod thread;
