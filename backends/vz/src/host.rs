//! The facts about a Mac from which its capabilities follow.

use vmoon_core::{Bytes, Capabilities, Capability, Code, Error, Result};

/// What was found out about this Mac.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// Major and minor version of macOS.
    pub macos: (u32, u32),
    /// Whether the processor is Apple's.
    pub apple_silicon: bool,
    /// Whether the hardware can run machines at all.
    pub supported: bool,
    /// Whether Rosetta can translate programs in a guest.
    pub rosetta: Rosetta,
    /// The most vCPUs of a machine.
    pub max_cpus: u32,
    /// The least and the most memory of a machine.
    pub memory: (Bytes, Bytes),
}

/// Whether Rosetta for Linux guests is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rosetta {
    /// Not on this Mac.
    NotSupported,
    /// It could be.
    NotInstalled,
    /// It is.
    Installed,
}

/// The first macOS whose framework saves machines.
const SAVES_FROM: u32 = 14;
/// The first macOS with all the devices that machines are given here.
const WORKS_FROM: u32 = 13;

/// Whether machines can be broken on purpose.
pub(crate) const NO_FAULTS: Capability =
    Capability::no("the framework's devices do not fail at anybody's wish");

impl HostFacts {
    /// Whether machines can run here.
    ///
    /// # Errors
    /// `backend.unavailable`.
    pub fn probe(&self) -> Result<()> {
        let unavailable = |message: String, hint: &str| {
            Err(Error::new(Code::BackendUnavailable, message).with_hint(hint))
        };
        if self.macos.0 < WORKS_FROM {
            return unavailable(
                format!(
                    "Virtualization.framework is used from macOS {WORKS_FROM} on; this is {}.{}",
                    self.macos.0, self.macos.1
                ),
                "update macOS",
            );
        }
        if !self.supported {
            return unavailable(
                "this Mac cannot run virtual machines".to_owned(),
                "inside a virtual machine, nested virtualization needs an M3 and macOS 15",
            );
        }
        Ok(())
    }

    /// What can be done here.
    pub fn capabilities(&self) -> Capabilities {
        Capabilities {
            snapshot: self.saves(),
            fork: Capability::no(
                "two live machines may not share the identifier that a saved state is bound to; \
                 restore in place, or load a saved snapshot once its machine is closed",
            ),
            save: self.saves(),
            vsock: Capability::Yes,
            balloon: Capability::Yes,
            balloon_reclaims_host_memory: Capability::no(
                "the framework keeps the pages that a guest gives up",
            ),
            entropy: Capability::Yes,
            disks: Capability::Yes,
            qcow2: Capability::no("the framework reads raw images alone"),
            shares: Capability::Yes,
            net: Capability::Yes,
            faults: NO_FAULTS,
            rosetta: match (self.apple_silicon, self.rosetta) {
                (false, _) => Capability::no("Rosetta exists on Apple silicon only"),
                (true, Rosetta::Installed) => Capability::Yes,
                (true, Rosetta::NotInstalled) => {
                    Capability::no("Rosetta is not installed: softwareupdate --install-rosetta")
                }
                (true, Rosetta::NotSupported) => Capability::no("this macOS has no Rosetta"),
            },
            linux: Capability::Yes,
            max_cpus: self.max_cpus,
        }
    }

    fn saves(&self) -> Capability {
        if !self.apple_silicon {
            return Capability::no("the framework saves machines on Apple silicon only");
        }
        if self.macos.0 < SAVES_FROM {
            return Capability::No(
                format!(
                    "the framework saves machines from macOS {SAVES_FROM} on; this is {}.{}",
                    self.macos.0, self.macos.1
                )
                .into(),
            );
        }
        Capability::Yes
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn modern() -> HostFacts {
        HostFacts {
            macos: (15, 1),
            apple_silicon: true,
            supported: true,
            rosetta: Rosetta::Installed,
            max_cpus: 8,
            memory: (Bytes::mib(4), Bytes::gib(16)),
        }
    }

    fn reason(capability: &Capability) -> &str {
        capability.reason().expect("a refusal")
    }

    #[test]
    fn a_modern_mac_saves_but_neither_forks_nor_reclaims() {
        modern().probe().unwrap();
        let can = modern().capabilities();
        assert!(can.snapshot.is_yes() && can.save.is_yes() && can.rosetta.is_yes());
        assert!(reason(&can.fork).contains("identifier"));
        assert!(!can.balloon_reclaims_host_memory.is_yes());
        assert_eq!(can.max_cpus, 8);
    }

    #[test]
    fn snapshots_need_macos_14_and_apple_silicon() {
        let older = HostFacts { macos: (13, 6), ..modern() };
        assert!(reason(&older.capabilities().snapshot).contains("13.6"));
        let intel = HostFacts { apple_silicon: false, ..modern() };
        assert!(reason(&intel.capabilities().save).contains("Apple silicon"));
        assert!(reason(&intel.capabilities().rosetta).contains("Apple silicon"));
        let bare = HostFacts { rosetta: Rosetta::NotInstalled, ..modern() };
        assert!(reason(&bare.capabilities().rosetta).contains("softwareupdate"));
    }

    #[test]
    fn what_cannot_run_machines_says_why() {
        for facts in
            [HostFacts { macos: (12, 7), ..modern() }, HostFacts { supported: false, ..modern() }]
        {
            let error = facts.probe().unwrap_err();
            assert_eq!(error.code(), Code::BackendUnavailable);
            assert!(error.hint().is_some());
        }
    }
}
