//! A machine with its agent, console and snapshot tree, as scripts see it.

/// A machine as scripts see it.
#[derive(Debug)]
pub struct Vm;
