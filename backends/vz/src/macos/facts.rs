//! What this Mac can do.

use std::sync::OnceLock;

use objc2::ClassType;
use objc2_foundation::NSProcessInfo;
use objc2_virtualization::{
    VZLinuxRosettaAvailability, VZLinuxRosettaDirectoryShare, VZVirtualMachine,
    VZVirtualMachineConfiguration,
};
use vmoon_core::Bytes;

use crate::host::{HostFacts, Rosetta};

/// The facts, found out once.
pub(super) fn of_this_mac() -> HostFacts {
    static FACTS: OnceLock<HostFacts> = OnceLock::new();
    FACTS.get_or_init(find_out).clone()
}

fn find_out() -> HostFacts {
    let version = NSProcessInfo::processInfo().operatingSystemVersion();
    let part = |number: isize| u32::try_from(number).unwrap_or(0);
    let macos = (part(version.majorVersion), part(version.minorVersion));
    // SAFETY: class methods without arguments, which may be called on any thread.
    let (supported, cpus, least, most) = unsafe {
        (
            VZVirtualMachine::isSupported(),
            VZVirtualMachineConfiguration::maximumAllowedCPUCount(),
            VZVirtualMachineConfiguration::minimumAllowedMemorySize(),
            VZVirtualMachineConfiguration::maximumAllowedMemorySize(),
        )
    };
    HostFacts {
        macos,
        apple_silicon: cfg!(target_arch = "aarch64"),
        supported,
        rosetta: rosetta(macos),
        max_cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        memory: (Bytes(least), Bytes(most)),
    }
}

fn rosetta(macos: (u32, u32)) -> Rosetta {
    // The class came with macOS 13, and Intel Macs do not have it at all.
    if macos.0 < 13 || !cfg!(target_arch = "aarch64") {
        return Rosetta::NotSupported;
    }
    let _ = VZLinuxRosettaDirectoryShare::class();
    // SAFETY: a class method without arguments, of a class that exists.
    match unsafe { VZLinuxRosettaDirectoryShare::availability() } {
        VZLinuxRosettaAvailability::Installed => Rosetta::Installed,
        VZLinuxRosettaAvailability::NotInstalled => Rosetta::NotInstalled,
        _ => Rosetta::NotSupported,
    }
}
