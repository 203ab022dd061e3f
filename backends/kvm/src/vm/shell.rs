//! What KVM holds for one machine.

use std::io;
use std::sync::Arc;

use kvm_bindings::{
    KVM_MEM_LOG_DIRTY_PAGES, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::VmFd;
use vmoon_core::{Code, Error, Result};
use vmoon_virtio::RestoreMode;

use super::devices::Devices;
use super::host::KvmHost;
use super::plan::Plan;
use super::state::{ChipsetState, MachineState};
use crate::boot::layout;
use crate::bus::Bus;
use crate::memory::ram::Ram;
use crate::snapshot::frozen::Frozen;
use crate::vcpu::job::{Job, Outcome};
use crate::vcpu::state::failed;
use crate::vcpu::thread::{OnEnding, Vcpu};

/// A virtual machine in KVM with its memory, vCPUs (parked) and devices. Dropping it ends the
/// vCPUs' threads and frees everything.
#[derive(Debug)]
pub(crate) struct Shell {
    // In the order in which they must go: threads first, memory last.
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) devices: Devices,
    pub(crate) bus: Arc<Bus>,
    pub(crate) vm: VmFd,
    pub(crate) ram: Arc<Ram>,
    host: &'static KvmHost,
}

impl Shell {
    /// Makes the machine over `ram`.
    ///
    /// Memory slots come before the interrupt controllers: later, each costs an SRCU grace
    /// period.
    pub(crate) fn new(
        plan: &Plan,
        ram: Ram,
        make_devices: impl FnOnce(&VmFd, &Arc<Ram>) -> Result<(Devices, Bus)>,
        on_ending: &OnEnding,
    ) -> Result<Self> {
        let host = KvmHost::get()?;
        let vm = host.kvm.create_vm().map_err(|error| failed("KVM_CREATE_VM", error))?;
        let ram = Arc::new(ram);
        for (slot, region) in ram.regions().iter().enumerate() {
            let slot = kvm_userspace_memory_region {
                slot: u32::try_from(slot).expect("few slots"),
                flags: KVM_MEM_LOG_DIRTY_PAGES,
                guest_phys_addr: region.start,
                memory_size: region.length as u64,
                userspace_addr: ram.host_address(region),
            };
            // SAFETY: the range is mapped for as long as `ram` lives, which `Shell` drops after
            // the machine.
            unsafe { vm.set_user_memory_region(slot) }
                .map_err(|error| failed("KVM_SET_USER_MEMORY_REGION", error))?;
        }
        vm.set_tss_address(usize::try_from(layout::KVM_TSS).expect("64-bit host"))
            .map_err(|error| failed("KVM_SET_TSS_ADDR", error))?;
        vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
            .map_err(|error| failed("KVM_SET_IDENTITY_MAP_ADDR", error))?;
        vm.create_irq_chip().map_err(|error| failed("KVM_CREATE_IRQCHIP", error))?;
        let timer = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        vm.create_pit2(timer).map_err(|error| failed("KVM_CREATE_PIT2", error))?;
        let (devices, bus) = make_devices(&vm, &ram)?;
        let bus = Arc::new(bus);
        let mut vcpus = Vec::with_capacity(plan.cpuid.len());
        for (index, cpuid) in plan.cpuid.iter().enumerate() {
            let fd =
                vm.create_vcpu(index as u64).map_err(|error| failed("KVM_CREATE_VCPU", error))?;
            fd.set_cpuid2(cpuid).map_err(|error| failed("KVM_SET_CPUID2", error))?;
            let vcpu = Vcpu::spawn(index, fd, bus.clone(), on_ending.clone())
                .map_err(|error| cannot("start a vCPU's thread", error))?;
            vcpus.push(vcpu);
        }
        Ok(Self { vcpus, devices, bus, vm, ram, host })
    }

    /// Ends the vCPUs' threads and frees memory, devices and their files. What is left is KVM's
    /// own bookkeeping, which goes when the result is dropped.
    pub(crate) fn dismantle(self) -> VmFd {
        let Self { vcpus, devices, bus, vm, ram, host: _ } = self;
        drop((vcpus, devices, bus, ram));
        vm
    }

    /// Stops all vCPUs; returns once no guest code runs.
    pub(crate) fn park(&self) {
        self.vcpus.iter().for_each(Vcpu::request_park);
        self.vcpus.iter().for_each(Vcpu::wait_parked);
    }

    /// Lets all vCPUs run.
    pub(crate) fn run(&self) {
        self.vcpus.iter().for_each(Vcpu::resume);
    }

    /// Reads all state but memory. The vCPUs are parked, and each reads its own.
    pub(crate) fn save_state(&self) -> Result<MachineState> {
        for vcpu in &self.vcpus {
            vcpu.assign(Job::Save(self.host.extended_length));
        }
        let chipset = ChipsetState::save(&self.vm);
        let (legacy, devices) = (self.bus.ports.save(), self.devices.save());
        // Every outcome is waited for, also after a failure.
        let saved: Vec<_> = self.vcpus.iter().map(Vcpu::wait_outcome).collect();
        let vcpus = saved
            .into_iter()
            .map(|outcome| match outcome {
                Outcome::Saved(state) => state.map(|state| *state),
                Outcome::Restored(_) => unreachable!("the job was to save"),
            })
            .collect::<Result<_>>()?;
        Ok(MachineState { vcpus, chipset: chipset?, legacy, devices })
    }

    /// Puts all state back: vCPUs on their threads, memory (by `put_back`), interrupt controllers
    /// and devices on this one. The vCPUs are parked.
    pub(crate) fn restore_state<T>(
        &self,
        frozen: &Arc<Frozen>,
        mode: RestoreMode,
        put_back: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        for vcpu in &self.vcpus {
            vcpu.assign(Job::Restore(frozen.clone()));
        }
        let put_back = put_back();
        // Every outcome is waited for, also after a failure.
        let outcomes: Vec<_> = self.vcpus.iter().map(Vcpu::wait_outcome).collect();
        for outcome in outcomes {
            match outcome {
                Outcome::Restored(result) => result?,
                Outcome::Saved(_) => unreachable!("the job was to restore"),
            }
        }
        let put_back = put_back?;
        // After the vCPUs: the controllers send at once what is pending for a local APIC, and an
        // interrupt that a device raises again must find all of them ready.
        frozen.state.chipset.restore(&self.vm)?;
        self.bus.ports.restore(&frozen.state.legacy);
        self.devices.restore(&frozen.state.devices, mode)?;
        Ok(put_back)
    }
}

/// Something of the host's failed that has nothing to do with the guest.
pub(crate) fn cannot(what: &str, error: io::Error) -> Error {
    let hint = match error.raw_os_error() {
        Some(libc::ENOMEM) => Some("free memory on the host, or give machines less"),
        Some(libc::EMFILE) => Some("raise the limit of open files (ulimit -n)"),
        _ => None,
    };
    let shown = Error::new(Code::BackendUnavailable, format!("cannot {what}")).with_source(error);
    match hint {
        Some(hint) => shown.with_hint(hint),
        None => shown,
    }
}
