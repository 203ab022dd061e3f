//! What the tests at the level of users share.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`project`] | finds the project, and builds the `vmoon` that every test runs |
//! | [`process`] | runs a program to its end, within a deadline, and keeps what it printed |
//! | [`suite`] | folders of `vmoon.test` files |
//! | `processes` (Linux) | finds, watches and kills what a program has started |
//! | [`saved`] | asks a saved snapshot whether it is whole |
//! | [`skip`] | says why a test cannot run here; in CI that is a failure |
//! | `debian` (Linux) | makes a root file system of Debian's, once |
//! | `nested` (Linux) | runs `vmoon` in a machine whose KVM can run stock Linux |
//!
//! The tests themselves are the Lua scripts in `scripts/` (the micro guest, on the KVM at hand)
//! and in `nested/` (stock Linux), and the suites in `suites/`, which run those scripts, every
//! example, the command line and all the input that must be refused.

#[cfg(target_os = "linux")]
pub mod debian;
#[cfg(target_os = "linux")]
pub mod nested;
pub mod process;
#[cfg(target_os = "linux")]
pub mod processes;
pub mod project;
pub mod saved;
pub mod skip;
pub mod suite;
