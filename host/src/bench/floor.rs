//! The host's best, where this host has a floor to measure.

use std::time::Duration;

use vmoon_core::{Bytes, Result};

/// A bare machine of the hypervisor's.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[derive(Debug)]
pub(super) struct Floor(vmoon_kvm::floor::Floor);

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
impl Floor {
    /// One of this size, with this many pages to copy.
    pub(super) fn new(memory: Bytes, pages: u64) -> Result<Self> {
        let pages = usize::try_from(pages).unwrap_or(usize::MAX).max(1);
        Ok(Self(vmoon_kvm::floor::Floor::new(memory, pages)?))
    }

    /// The calls and copies of a restore.
    pub(super) fn restore(&mut self) -> Result<Option<Duration>> {
        self.0.restore().map(Some)
    }

    /// The calls and copies of a snapshot.
    pub(super) fn snapshot(&mut self) -> Result<Option<Duration>> {
        self.0.snapshot().map(Some)
    }

    /// The calls that make another bare machine.
    pub(super) fn fork(&self) -> Result<Option<Duration>> {
        self.0.fork().map(Some)
    }
}

/// No floor is known here.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[derive(Debug)]
pub(super) struct Floor;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[allow(
    clippy::unnecessary_wraps,
    clippy::unused_self,
    reason = "the same interface as where there is a floor"
)]
impl Floor {
    pub(super) fn new(_: Bytes, _: u64) -> Result<Self> {
        Ok(Self)
    }

    pub(super) fn restore(&mut self) -> Result<Option<Duration>> {
        Ok(None)
    }

    pub(super) fn snapshot(&mut self) -> Result<Option<Duration>> {
        Ok(None)
    }

    pub(super) fn fork(&self) -> Result<Option<Duration>> {
        Ok(None)
    }
}
