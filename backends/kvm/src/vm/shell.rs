//! What KVM holds for one machine.

use std::io;
use std::sync::{Arc, Barrier};

use kvm_ioctls::VmFd;
use rustix::process::{Resource, getrlimit};
use vmoon_core::{Code, Error, Result};
use vmoon_virtio::RestoreMode;

use super::devices::Devices;
use super::hardware;
use super::host::KvmHost;
use super::plan::Plan;
use super::state::{ChipsetState, MachineState};
use crate::bus::Bus;
use crate::memory::ram::Ram;
use crate::snapshot::frozen::Frozen;
use crate::vcpu::holds::Holds;
use crate::vcpu::job::{Job, Outcome, Task};
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
    /// vCPUs that do not run though the machine does.
    pub(crate) holds: Holds,
    host: &'static KvmHost,
}

impl Shell {
    /// Makes the machine over `ram`.
    pub(crate) fn new(
        plan: &Plan,
        ram: Ram,
        make_devices: impl FnOnce(&VmFd, &Arc<Ram>) -> Result<(Devices, Bus)>,
        on_ending: &OnEnding,
    ) -> Result<Self> {
        let host = KvmHost::get()?;
        let ram = Arc::new(ram);
        let vm = hardware::create_vm(host, &ram)?;
        let (devices, bus) = make_devices(&vm, &ram)?;
        let bus = Arc::new(bus);
        let mut vcpus = Vec::with_capacity(plan.cpuid.len());
        for (index, cpuid) in plan.cpuid.iter().enumerate() {
            let fd = hardware::create_vcpu(&vm, index, cpuid)?;
            let vcpu = Vcpu::spawn(index, fd, bus.clone(), on_ending.clone())
                .map_err(|error| cannot("start a vCPU's thread", error))?;
            vcpus.push(vcpu);
        }
        Ok(Self { vcpus, devices, bus, vm, ram, holds: Holds::default(), host })
    }

    /// Ends the vCPUs' threads and frees memory, devices and their files. What is left is KVM's
    /// own bookkeeping, which goes when the result is dropped.
    pub(crate) fn dismantle(self) -> VmFd {
        let Self { vcpus, devices, bus, vm, ram, holds: _, host: _ } = self;
        drop((vcpus, devices, bus, ram));
        vm
    }

    /// Stops all vCPUs; returns once no guest code runs.
    pub(crate) fn park(&self) {
        self.vcpus.iter().for_each(Vcpu::request_park);
        self.vcpus.iter().for_each(Vcpu::wait_parked);
    }

    /// Stops all vCPUs, each of which goes straight on to `task`; returns once no guest code runs.
    fn park_for(&self, task: &Task) {
        let together = (self.vcpus.len() > 1).then(|| Arc::new(Barrier::new(self.vcpus.len())));
        for vcpu in &self.vcpus {
            vcpu.assign(Job { task: task.clone(), together: together.clone() });
            vcpu.request_park();
        }
        self.vcpus.iter().for_each(Vcpu::wait_parked);
    }

    /// Lets all vCPUs run but those that are held.
    pub(crate) fn run(&self) {
        let holds = self.holds.all();
        let is_held = |index: usize| holds.iter().any(|(_, held)| *held == index);
        for (index, vcpu) in self.vcpus.iter().enumerate() {
            if is_held(index) {
                vcpu.request_park();
                vcpu.wait_parked();
            } else {
                vcpu.resume();
            }
        }
    }

    /// Stops all vCPUs and reads all state but memory. Each vCPU reads its own.
    pub(crate) fn save_state(&self) -> Result<MachineState> {
        self.park_for(&Task::Save(self.host));
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
        Ok(MachineState { vcpus, chipset: chipset?, legacy, devices, holds: self.holds.all() })
    }

    /// Stops all vCPUs and puts all state back: theirs on their threads, memory (by `put_back`),
    /// interrupt controllers and devices on this one.
    pub(crate) fn restore_state<T>(
        &self,
        frozen: &Arc<Frozen>,
        mode: RestoreMode,
        put_back: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        self.park_for(&Task::Restore(frozen.clone()));
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
        self.holds.restore(&frozen.state.holds);
        Ok(put_back)
    }
}

/// Something of the host's failed that has nothing to do with the guest.
pub(crate) fn cannot(what: &str, error: io::Error) -> Error {
    let shortage = shortage(&error);
    let shown = Error::new(Code::BackendUnavailable, format!("cannot {what}")).with_source(error);
    match shortage {
        Some(hint) => shown.with_hint(hint),
        None => shown,
    }
}

/// What to do where the host has run out of something.
pub(crate) fn shortage(error: &io::Error) -> Option<String> {
    match error.raw_os_error()? {
        libc::ENOMEM => Some("free memory on the host, or give machines less".to_owned()),
        libc::EMFILE => {
            let limit = getrlimit(Resource::Nofile).current;
            let limit = limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
            Some(format!(
                "this process may have {limit} files open, and each machine takes some twenty: \
                 raise the limit (ulimit -n), or keep fewer machines"
            ))
        }
        libc::ENFILE => Some("the host has too many files open (sysctl fs.file-max)".to_owned()),
        libc::EAGAIN => Some("the host has no room for more threads (ulimit -u)".to_owned()),
        _ => None,
    }
}
