//! Machines against the fake backend: the real protocol, no hypervisor.

mod boot;
mod commands;
mod snapshots;
mod stopping;
