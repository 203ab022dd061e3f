//! What a machine is made of, decided once and shared by its forks.

use std::path::PathBuf;
use std::sync::Arc;

use kvm_bindings::CpuId;
use serde::{Deserialize, Serialize};
use vmoon_core::MachineSpec;
use vmoon_core::spec::{Disk, DiskMode, Guest};

use crate::boot::cpuid;

use super::host::KvmHost;
use crate::machine::spare::Spares;

/// The hardware of a machine: the same for every fork of it.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The bytes of RAM.
    pub(crate) memory: usize,
    /// The CPUID of each vCPU.
    pub(crate) cpuid: Vec<CpuId>,
    /// The virtio devices, in the order of their addresses.
    pub(crate) devices: Vec<DevicePlan>,
    /// Whether the guest reads its virtio console rather than the serial port.
    pub(crate) types_virtio: bool,
    /// Machines made ahead.
    pub(crate) spares: Spares,
}

/// One virtio device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum DevicePlan {
    /// Sockets.
    Vsock,
    /// The memory balloon.
    Balloon,
    /// Randomness.
    Entropy,
    /// A console beside the serial port.
    Console,
    /// A disk.
    Block {
        /// The image.
        path: PathBuf,
        /// Whether the guest may only read.
        readonly: bool,
        /// Where writes go.
        mode: DiskMode,
    },
}

impl DevicePlan {
    /// The disk that it is, if it is one.
    pub(crate) fn disk(&self) -> Option<Disk> {
        let Self::Block { path, readonly, mode } = self else { return None };
        Some(Disk { path: path.clone(), readonly: *readonly, mode: *mode })
    }
}

impl Plan {
    /// The disks, in the order of the spec.
    pub(crate) fn disks(&self) -> impl Iterator<Item = Disk> {
        self.devices.iter().filter_map(DevicePlan::disk)
    }

    /// The plan for a machine as described.
    pub(crate) fn new(spec: &MachineSpec, host: &KvmHost) -> Arc<Self> {
        let mut devices = Vec::new();
        devices.extend(spec.vsock.map(|_| DevicePlan::Vsock));
        devices.extend(spec.balloon.then_some(DevicePlan::Balloon));
        devices.extend(spec.entropy.then_some(DevicePlan::Entropy));
        devices.push(DevicePlan::Console);
        devices.extend(spec.disks.iter().map(|disk| DevicePlan::Block {
            path: disk.path.clone(),
            readonly: disk.readonly,
            mode: disk.mode,
        }));
        let cpuid =
            (0..spec.cpus).map(|index| cpuid::for_vcpu(&host.cpuid, index, spec.cpus)).collect();
        let memory = usize::try_from(spec.memory.get()).expect("checked against the host's memory");
        Arc::new(Self {
            memory,
            cpuid,
            devices,
            types_virtio: spec.guest == Guest::Micro,
            spares: Spares::default(),
        })
    }
}
