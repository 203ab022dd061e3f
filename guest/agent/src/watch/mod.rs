//! Waits for ports, sockets, files, processes, units and names that the guest declares. The host
//! asks once, and is told when it came true.
//!
//! | module | holds |
//! | --- | --- |
//! | [`wait`] | the loop of every wait: arm, look, tell what is seen, sleep |
//! | [`port`] | somebody listens on a port |
//! | [`socket`] | somebody listens on a Unix socket |
//! | [`file`] | a path exists, or is gone |
//! | [`changes`] | the word of inotify, and of mounts |
//! | [`places`] | the directories whose changes decide whether a path exists |
//! | [`process`] | processes end |
//! | [`unit`] | a systemd unit is in a state |
//! | [`dbus`] | as much of D-Bus as systemd's private socket takes |
//! | [`listening`] | the kernel's word that a program called `listen` |
//! | [`vsock_listeners`] | who listens on vsock |
//!
//! # What wakes a wait
//! | for | Linux offers |
//! | --- | --- |
//! | ports, sockets | nothing of its own (`sock_diag` announces only ends), but a trace event for the system call: see [`listening`] |
//! | files | inotify, and `mountinfo` that polls as ready when something is mounted |
//! | processes | pidfd |
//! | units | systemd's signals |
//!
//! Where the kernel keeps its word to itself (no trace events; `/proc`, `/sys` and shared folders
//! for inotify) a wait looks every few milliseconds, and otherwise once a second, in case.

mod changes;
mod dbus;
mod file;
mod listening;
mod places;
mod port;
mod process;
mod socket;
mod unit;
mod vsock_listeners;
mod wait;

pub(crate) use wait::{Outcome, wait};
