//! What a snapshot keeps of a machine besides its memory.

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_clock_data, kvm_irqchip,
    kvm_pit_state2,
};
use kvm_ioctls::VmFd;
use serde::{Deserialize, Serialize};
use vmoon_core::Result;
use vmoon_virtio::block::Overlay;

use crate::legacy::LegacyState;
use crate::transport::TransportState;
use crate::vcpu::holds::Hold;
use crate::vcpu::state::{VcpuState, failed};

/// All state of a machine but its memory, as plain structures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MachineState {
    /// One for each vCPU.
    pub(crate) vcpus: Vec<VcpuState>,
    /// What KVM keeps for the machine as a whole.
    pub(crate) chipset: ChipsetState,
    /// The devices on the I/O ports.
    pub(crate) legacy: LegacyState,
    /// The virtio devices, in the order of their addresses.
    pub(crate) devices: Vec<TransportState>,
    /// Faults that hold vCPUs; on disk there are none.
    #[serde(skip)]
    pub(crate) holds: Vec<Hold>,
}

impl MachineState {
    /// What was written above the images of disks, in their order.
    pub(crate) fn overlays(&self) -> Vec<Overlay> {
        let disks = self.devices.iter().filter_map(TransportState::block);
        disks.map(|disk| disk.overlay.clone().unwrap_or_default()).collect()
    }
}

/// KVM's interrupt controllers, timer and clock.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(clippy::unsafe_derive_deserialize, reason = "its unsafe code reads a union of plain data")]
pub(crate) struct ChipsetState {
    timer: kvm_pit_state2,
    clock: kvm_clock_data,
    /// The two 8259 and the I/O APIC.
    controllers: [IrqChip; 3],
}

/// One interrupt controller (KVM API section 4.26). KVM's structure is a union without serde.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct IrqChip {
    id: u32,
    #[serde(with = "serde_bytes_512")]
    registers: [u8; 512],
}

const CONTROLLERS: [u32; 3] = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];

impl ChipsetState {
    /// Reads the state; no vCPU runs.
    pub(crate) fn save(vm: &VmFd) -> Result<Self> {
        let timer = vm.get_pit2().map_err(|error| failed("KVM_GET_PIT2", error))?;
        let clock = vm.get_clock().map_err(|error| failed("KVM_GET_CLOCK", error))?;
        let mut controllers = CONTROLLERS.map(|id| IrqChip { id, registers: [0; 512] });
        for chip in &mut controllers {
            let mut kvm_chip = kvm_irqchip { chip_id: chip.id, ..Default::default() };
            vm.get_irqchip(&mut kvm_chip).map_err(|error| failed("KVM_GET_IRQCHIP", error))?;
            // SAFETY: every member of the union is plain data, and `dummy` spans it.
            let bytes = unsafe { kvm_chip.chip.dummy };
            chip.registers = bytes.map(i8::cast_unsigned);
        }
        // The flags of a saved clock say how it was read; as input they would ask for a jump.
        Ok(Self { timer, clock: kvm_clock_data { flags: 0, ..clock }, controllers })
    }

    /// Puts the state back, after the vCPUs': KVM sends what is pending at once.
    pub(crate) fn restore(&self, vm: &VmFd) -> Result<()> {
        vm.set_pit2(&self.timer).map_err(|error| failed("KVM_SET_PIT2", error))?;
        vm.set_clock(&self.clock).map_err(|error| failed("KVM_SET_CLOCK", error))?;
        for chip in &self.controllers {
            let mut kvm_chip = kvm_irqchip { chip_id: chip.id, ..Default::default() };
            kvm_chip.chip.dummy = chip.registers.map(u8::cast_signed);
            vm.set_irqchip(&kvm_chip).map_err(|error| failed("KVM_SET_IRQCHIP", error))?;
        }
        Ok(())
    }
}

/// serde has no arrays of 512.
mod serde_bytes_512 {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bytes: &[u8; 512],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        bytes.as_slice().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[u8; 512], D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        bytes
            .try_into()
            .map_err(|bytes: Vec<u8>| D::Error::invalid_length(bytes.len(), &"512 bytes"))
    }
}
