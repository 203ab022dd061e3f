//! A machine: the thread that owns it, and the handle through which others ask things of it.
//!
//! A restore makes a new machine of the framework in the place of the old one, which cannot go
//! back. What the old one still has to say is told apart by the number of its life.

pub(crate) mod actor;
pub(crate) mod birth;
pub(crate) mod command;
pub(crate) mod handle;
pub(crate) mod snapshots;
#[cfg(test)]
mod tests;
