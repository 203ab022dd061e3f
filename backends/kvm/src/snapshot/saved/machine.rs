//! The machine in a manifest.

use std::path::Path;

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use serde::{Deserialize, Serialize};
use vmoon_core::Result;
use vmoon_core::saved::images::DiskImage;
use vmoon_core::saved::manifest::corrupt;
use vmoon_core::spec::Disk;

use crate::vm::plan::{DevicePlan, Plan};

/// The hardware of a saved machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedMachine {
    /// The virtio devices, in the order of their addresses.
    pub(super) devices: Vec<DevicePlan>,
    /// The images of disks as they were.
    pub(super) images: Vec<DiskImage>,
    /// Whether the guest reads its virtio console rather than the serial port.
    pub(super) types_virtio: bool,
    /// The CPUID of each vCPU: a line for each leaf, in hexadecimal: leaf, subleaf, flags of KVM,
    /// EAX, EBX, ECX, EDX.
    cpuid: Vec<Vec<String>>,
}

impl SavedMachine {
    /// The machine of a plan, with absolute paths.
    pub(super) fn new(plan: &Plan) -> std::io::Result<Self> {
        let mut devices = plan.devices.clone();
        for device in &mut devices {
            if let DevicePlan::Block { path, .. } = device {
                *path = std::path::absolute(&*path)?;
            }
        }
        Ok(Self {
            images: devices.iter().filter_map(image_of).collect::<std::io::Result<_>>()?,
            devices,
            types_virtio: plan.types_virtio,
            cpuid: plan
                .cpuid
                .iter()
                .map(|cpuid| cpuid.as_slice().iter().map(leaf_to_text).collect())
                .collect(),
        })
    }

    /// The CPUID of each vCPU; `manifest` is for messages.
    pub(super) fn cpuid(&self, manifest: &Path) -> Result<Vec<CpuId>> {
        let impossible = || corrupt(manifest, "describes impossible CPUs");
        let vcpus: Vec<CpuId> = self
            .cpuid
            .iter()
            .map(|leaves| {
                let entries: Option<Vec<_>> =
                    leaves.iter().map(|leaf| leaf_from_text(leaf)).collect();
                CpuId::from_entries(&entries.ok_or_else(impossible)?).map_err(|_| impossible())
            })
            .collect::<Result<_>>()?;
        if vcpus.is_empty() { Err(impossible()) } else { Ok(vcpus) }
    }
}

/// The image of a device that is a disk, if it must stay as it is.
fn image_of(device: &DevicePlan) -> Option<std::io::Result<DiskImage>> {
    let DevicePlan::Block { path, readonly, mode } = device else { return None };
    DiskImage::of(&Disk { path: path.clone(), readonly: *readonly, mode: *mode })
}

fn leaf_to_text(leaf: &kvm_cpuid_entry2) -> String {
    let kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, .. } = leaf;
    format!("{function:08x} {index:02x} {flags:x}  {eax:08x} {ebx:08x} {ecx:08x} {edx:08x}")
}

fn leaf_from_text(text: &str) -> Option<kvm_cpuid_entry2> {
    let words: Option<Vec<u32>> =
        text.split_whitespace().map(|word| u32::from_str_radix(word, 16).ok()).collect();
    let [function, index, flags, eax, ebx, ecx, edx] = words?.try_into().ok()?;
    Some(kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_are_text_and_back() {
        let leaf = kvm_cpuid_entry2 {
            function: 0x8000_0001,
            index: 3,
            flags: 1,
            eax: 1,
            ebx: u32::MAX,
            ecx: 0,
            edx: 0xdead_beef,
            ..Default::default()
        };
        let text = leaf_to_text(&leaf);
        assert_eq!(text, "80000001 03 1  00000001 ffffffff 00000000 deadbeef");
        assert_eq!(leaf_from_text(&text), Some(leaf));
        for wrong in ["", "1 2 3", "1 2 3 4 5 6 7 8", "1 2 3 4 5 6 x"] {
            assert_eq!(leaf_from_text(wrong), None);
        }
    }
}
