//! The first start of a machine.

use std::time::Instant;

use vmoon_core::lifecycle::Operation;
use vmoon_core::spec::Guest;
use vmoon_core::{Result, State};

use super::actor::Actor;
use crate::acpi::{self, AcpiDescription};
use crate::boot::{self, Entry, EntryProtocol, LoadOptions, layout, msrs};
use crate::legacy::ports;
use crate::vcpu::state::failed;

impl Actor {
    /// Loads the kernel and lets the vCPUs run. A failure goes back to `created`.
    pub(super) fn start(&mut self) -> Result<()> {
        self.state().allows(Operation::Start)?;
        self.set_state(State::Starting, None);
        match self.load_kernel().and_then(|entry| self.prepare_vcpus(entry)) {
            Ok(()) => {
                self.shell.run();
                self.started = Some(Instant::now());
                self.set_state(State::Running, None);
                Ok(())
            }
            Err(error) => {
                self.set_state(State::Created, None);
                Err(error)
            }
        }
    }

    fn load_kernel(&self) -> Result<Entry> {
        let (source, guest) = self.boot.as_ref().expect("a fork is never in the state created");
        let memory = self.shell.ram.memory();
        let devices = u32::try_from(self.shell.devices.count()).expect("few devices");
        let cpus = u32::try_from(self.shell.vcpus.len()).expect("few vCPUs");
        let rsdp = acpi::write_tables(memory, AcpiDescription { cpus, virtio_devices: devices })?;
        let (cmdline, protocol) = match guest {
            // It reads no ACPI tables, so its command line tells it what they would.
            Guest::Micro => {
                let devices = layout::virtio_mmio_parameters(devices);
                let power = ports::power_parameters();
                // Each write to an irqfd is an edge of its own, acknowledged or not.
                let cmdline = format!("{} {devices} {power} vmoon.edge", source.cmdline);
                (cmdline, EntryProtocol::Linux64)
            }
            _ => (source.cmdline.clone(), EntryProtocol::Auto),
        };
        let options = LoadOptions {
            protocol,
            cmdline: cmdline.trim(),
            ram_size: self.plan.memory as u64,
            rsdp: Some(rsdp),
        };
        boot::load(memory, source, &options)
    }

    /// The boot vCPU enters the kernel; the others wait for its INIT and SIPI.
    fn prepare_vcpus(&self, entry: Entry) -> Result<()> {
        for vcpu in &self.shell.vcpus {
            msrs::set_boot_msrs(&vcpu.fd());
        }
        let boot_vcpu = self.shell.vcpus.first().expect("at least one vCPU").fd();
        let mut special = boot_vcpu.get_sregs().map_err(|error| failed("KVM_GET_SREGS", error))?;
        boot::set_special_registers(entry, &mut special);
        boot_vcpu.set_sregs(&special).map_err(|error| failed("KVM_SET_SREGS", error))?;
        boot_vcpu
            .set_regs(&boot::initial_registers(entry))
            .map_err(|error| failed("KVM_SET_REGS", error))?;
        boot_vcpu.set_fpu(&boot::initial_fpu()).map_err(|error| failed("KVM_SET_FPU", error))
    }
}
