//! What CPUID answers in the guest: what KVM supports, less what a snapshot cannot carry, with
//! the topology of `n` single-threaded cores in one package.
//!
//! Leaves are those of the Intel manual, volume 2A (CPUID), and of AMD's manual, volume 3,
//! appendix E; KVM's own are in Linux's `Documentation/virt/kvm/x86/cpuid.rst`.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};
use vmoon_core::{Code, Error, Result};

mod bit {
    //! Feature bits that are changed here.
    pub(super) const VMX: u32 = 1 << 5;
    pub(super) const TSC_DEADLINE: u32 = 1 << 24;
    pub(super) const HYPERVISOR: u32 = 1 << 31;
    pub(super) const MULTIPLE_IDS: u32 = 1 << 28;
    pub(super) const SVM: u32 = 1 << 2;
    pub(super) const CMP_LEGACY: u32 = 1 << 1;
    pub(super) const PERFORMANCE_COUNTERS: u32 = 1 << 23;
    pub(super) const INVARIANT_TSC: u32 = 1 << 8;
    /// `KVM_FEATURE_ASYNC_PF`, `_ASYNC_PF_VMEXIT` and `_ASYNC_PF_INT`.
    pub(super) const ASYNC_PAGE_FAULTS: u32 = (1 << 4) | (1 << 10) | (1 << 14);
}

const KVM_SIGNATURE: u32 = 0x4000_0000;
const KVM_FEATURES: u32 = 0x4000_0001;

/// CPUID for the vCPUs of all machines on this host, still without ids.
///
/// # Errors
/// `backend.unavailable` if KVM does not tell.
pub(crate) fn template(kvm: &Kvm) -> Result<CpuId> {
    let supported =
        kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES).map_err(|error| {
            Error::new(Code::BackendUnavailable, "KVM does not say what CPUs it supports")
                .with_source(std::io::Error::from_raw_os_error(error.errno()))
        })?;
    Ok(adapt(&supported, kvm.check_extension(Cap::TscDeadlineTimer)))
}

/// [`template`] from what KVM supports.
pub(crate) fn adapt(supported: &CpuId, tsc_deadline: bool) -> CpuId {
    let mut entries = supported.as_slice().to_vec();
    // Other hypervisor leaves describe the host's own hypervisor, not this machine.
    entries.retain(|entry| {
        !(KVM_FEATURES + 1..0x5000_0000).contains(&entry.function) && entry.function != 0x8000_000a
    });
    for entry in &mut entries {
        adapt_entry(entry, tsc_deadline);
    }
    // The list only became shorter, so it fits.
    CpuId::from_entries(&entries).unwrap_or_else(|_| supported.clone())
}

fn adapt_entry(entry: &mut kvm_cpuid_entry2, tsc_deadline: bool) {
    match entry.function {
        0x1 => {
            entry.ecx |= bit::HYPERVISOR;
            // Nested machines have state that snapshots do not hold.
            entry.ecx &= !bit::VMX;
            if tsc_deadline {
                // KVM implements it with its in-kernel APIC but does not list it.
                entry.ecx |= bit::TSC_DEADLINE;
            }
        }
        // Performance counters: neither are their registers in a snapshot.
        0xa | 0x8000_0022 => {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
        }
        KVM_SIGNATURE => entry.eax = KVM_FEATURES,
        // A page fault that completes later has no meaning in a machine that went back in time.
        KVM_FEATURES => entry.eax &= !bit::ASYNC_PAGE_FAULTS,
        0x8000_0001 => entry.ecx &= !(bit::SVM | bit::PERFORMANCE_COUNTERS),
        // kvmclock stays right across restores and hosts; a guest that trusts its TSC does not.
        0x8000_0007 => entry.edx &= !bit::INVARIANT_TSC,
        _ => {}
    }
}

/// CPUID of vCPU `index` of `count`, whose local APIC id is `index`.
pub(crate) fn for_vcpu(template: &CpuId, index: u32, count: u32) -> CpuId {
    let mut entries = template.as_slice().to_vec();
    let extended = entries.iter().any(|entry| entry.function == 0xb);
    // Each of these has one entry for every level; they are written anew.
    entries.retain(|entry| entry.function != 0xb && entry.function != 0x1f);
    for entry in &mut entries {
        set_topology(entry, index, count);
    }
    if extended {
        let list = (0..3).map(|level| extended_topology(level, index, count));
        entries.extend(list);
    }
    CpuId::from_entries(&entries).unwrap_or_else(|_| template.clone())
}

/// The number of APIC id bits that tell the cores of the package apart.
fn id_bits(count: u32) -> u32 {
    count.max(1).next_power_of_two().trailing_zeros()
}

fn set_topology(entry: &mut kvm_cpuid_entry2, index: u32, count: u32) {
    let ids = 1u32 << id_bits(count);
    match entry.function {
        0x1 => {
            entry.ebx = (entry.ebx & 0x0000_ffff) | (index << 24) | (ids.min(255) << 16);
            if count > 1 {
                entry.edx |= bit::MULTIPLE_IDS;
            } else {
                entry.edx &= !bit::MULTIPLE_IDS;
            }
        }
        // Caches, Intel (4) and AMD (0x8000001d): the third level is shared by all.
        0x4 | 0x8000_001d if entry.eax & 0x1f != 0 => {
            let level = (entry.eax >> 5) & 7;
            let sharing = if level >= 3 { ids - 1 } else { 0 };
            entry.eax = (entry.eax & 0x0000_3fff) | (sharing.min(0xfff) << 14);
            if entry.function == 0x4 {
                entry.eax |= (ids - 1).min(0x3f) << 26;
            }
        }
        0x8000_0001 => {
            if count > 1 && is_amd_topology(entry) {
                entry.ecx |= bit::CMP_LEGACY;
            } else {
                entry.ecx &= !bit::CMP_LEGACY;
            }
        }
        0x8000_0008 => {
            entry.ecx = (entry.ecx & !0xf0ff) | (id_bits(count) << 12) | ((count - 1) & 0xff);
        }
        // One thread a core, one node.
        0x8000_001e => {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (index, index & 0xff, 0, 0);
        }
        _ => {}
    }
}

/// Only AMD has the topology extensions.
fn is_amd_topology(entry: &kvm_cpuid_entry2) -> bool {
    entry.ecx & (1 << 22) != 0
}

/// Leaf 0xb: threads of a core, cores of the package, end of the list.
fn extended_topology(level: u32, index: u32, count: u32) -> kvm_cpuid_entry2 {
    const THREADS: u32 = 1;
    const CORES: u32 = 2;
    let (shift, number, kind) = match level {
        0 => (0, 1, THREADS),
        1 => (id_bits(count), count, CORES),
        _ => (0, 0, 0),
    };
    kvm_cpuid_entry2 {
        function: 0xb,
        index: level,
        flags: kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax: shift,
        ebx: number,
        ecx: (kind << 8) | level,
        edx: index,
        ..kvm_cpuid_entry2::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, ..kvm_cpuid_entry2::default() }
    }

    fn find(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        *cpuid
            .as_slice()
            .iter()
            .find(|entry| (entry.function, entry.index) == (function, index))
            .unwrap()
    }

    #[test]
    fn what_snapshots_cannot_carry_is_hidden() {
        let all_ones =
            |function| kvm_cpuid_entry2 { eax: !0, ebx: !0, ecx: !0, edx: !0, ..entry(function) };
        let functions =
            [0x1, 0xa, KVM_SIGNATURE, KVM_FEATURES, 0x4000_0010, 0x8000_0001, 0x8000_0007];
        let supported = CpuId::from_entries(&functions.map(all_ones)).unwrap();
        let adapted = adapt(&supported, false);
        assert_eq!(find(&adapted, 0x1, 0).ecx & bit::VMX, 0);
        assert_eq!(find(&adapted, 0xa, 0).eax, 0);
        assert_eq!(find(&adapted, KVM_FEATURES, 0).eax & bit::ASYNC_PAGE_FAULTS, 0);
        assert_eq!(find(&adapted, 0x8000_0001, 0).ecx & bit::SVM, 0);
        assert_eq!(find(&adapted, 0x8000_0007, 0).edx & bit::INVARIANT_TSC, 0);
        assert!(adapted.as_slice().iter().all(|entry| entry.function != 0x4000_0010));
    }

    #[test]
    fn each_vcpu_has_its_id_in_every_leaf() {
        let cache = kvm_cpuid_entry2 { eax: 0x163, index: 3, ..entry(0x4) };
        let supported = CpuId::from_entries(&[
            entry(0x1),
            cache,
            entry(0xb),
            entry(0x8000_0008),
            entry(0x8000_001e),
        ])
        .unwrap();
        let cpuid = for_vcpu(&adapt(&supported, true), 2, 3);
        let leaf1 = find(&cpuid, 0x1, 0);
        assert_eq!((leaf1.ebx >> 24, (leaf1.ebx >> 16) & 0xff), (2, 4));
        assert!(leaf1.edx & bit::MULTIPLE_IDS != 0 && leaf1.ecx & bit::TSC_DEADLINE != 0);
        assert_eq!(find(&cpuid, 0x4, 3).eax, 0x163 | (3 << 14) | (3 << 26));
        for level in 0..3 {
            assert_eq!(find(&cpuid, 0xb, level).edx, 2);
        }
        assert_eq!((find(&cpuid, 0xb, 1).eax, find(&cpuid, 0xb, 1).ebx), (2, 3));
        assert_eq!(find(&cpuid, 0x8000_0008, 0).ecx, (2 << 12) | 2);
        assert_eq!(find(&cpuid, 0x8000_001e, 0).eax, 2);
    }

    #[test]
    fn one_vcpu_is_no_multiprocessor() {
        let supported = CpuId::from_entries(&[entry(0x1), entry(0xb)]).unwrap();
        let cpuid = for_vcpu(&adapt(&supported, true), 0, 1);
        assert_eq!(find(&cpuid, 0x1, 0).edx & bit::MULTIPLE_IDS, 0);
        assert_eq!((find(&cpuid, 0xb, 1).eax, find(&cpuid, 0xb, 1).ebx), (0, 1));
    }
}
