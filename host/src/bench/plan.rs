//! What is measured.

use vmoon_core::spec::Guest;
use vmoon_core::{Bytes, MachineSpec};

use crate::cli;

/// The choices of the command line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) guest: cli::BenchGuest,
    pub(super) memory: Bytes,
    /// How many pages the guest is told to write to.
    pub(super) dirty: usize,
    pub(super) rounds: usize,
}

impl Plan {
    pub(super) fn new(arguments: &cli::Bench) -> Self {
        let &cli::Bench { json: _, guest, memory, dirty, rounds } = arguments;
        Self { guest, memory, dirty, rounds }
    }

    /// The guest's name, as in `vmoon.boot { guest = … }`.
    pub(super) fn guest_name(&self) -> &'static str {
        match self.guest {
            cli::BenchGuest::Micro => "micro",
            cli::BenchGuest::Linux => "linux",
        }
    }

    /// The machine with this memory.
    pub(super) fn spec(&self, memory: Bytes) -> MachineSpec {
        let guest = match self.guest {
            cli::BenchGuest::Micro => Guest::Micro,
            cli::BenchGuest::Linux => Guest::Linux { kernel: None, initrd: None },
        };
        MachineSpec { guest, memory, ..MachineSpec::default() }
    }

    /// The rounds of what takes `times` as long as the rest.
    pub(super) fn fewer(&self, times: usize) -> usize {
        self.rounds.div_ceil(times)
    }
}
