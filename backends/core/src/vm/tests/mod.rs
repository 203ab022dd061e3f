//! Machines against the fake backend: the real protocol, no hypervisor.

mod boot;
mod commands;
mod disks;
mod saved;
mod snapshots;
mod stopping;
