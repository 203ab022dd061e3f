//! Makes the devices of a plan.

use std::sync::Arc;

use kvm_ioctls::VmFd;
use vmoon_core::faults::{BlockRule, VsockRule};
use vmoon_core::spec::Disk;
use vmoon_core::{Bytes, Cid, Console, Result};
use vmoon_virtio::balloon::{Balloon, BalloonHost};
use vmoon_virtio::block::{BlockDevice, BlockHost};
use vmoon_virtio::console::{ConsoleDevice, ConsoleHost, ConsoleSink};
use vmoon_virtio::entropy::{Entropy, EntropyHost};
use vmoon_virtio::faults::FaultRules;
use vmoon_virtio::vsock::{VsockDevice, VsockHost};

use super::devices::{Devices, event};
use super::plan::{DevicePlan, Plan};
use crate::boot::layout;
use crate::bus::Bus;
use crate::legacy::{LegacyInterrupts, PortBus};
use crate::memory::ram::Ram;
use crate::memory::reclaim::Reclaimer;
use crate::vcpu::state::failed;

/// The ends of devices that the host talks to.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    pub(crate) vsock: Option<VsockHost>,
    pub(crate) balloon: Option<BalloonHost>,
    pub(crate) console: Option<ConsoleHost>,
    pub(crate) entropy: Option<EntropyHost>,
    /// In the order of the spec.
    pub(crate) disks: Vec<BlockHost>,
    /// The rules by which they fail on purpose, and those of the sockets.
    pub(crate) disk_faults: Vec<FaultRules<BlockRule>>,
    pub(crate) vsock_faults: Option<FaultRules<VsockRule>>,
}

/// What [`devices`] makes.
pub(crate) struct Built {
    pub(crate) devices: Devices,
    pub(crate) bus: Bus,
    pub(crate) hosts: Hosts,
}

/// Makes all devices and wires them to `vm`.
pub(crate) fn devices(
    plan: &Plan,
    vm: &VmFd,
    ram: &Arc<Ram>,
    console: &Arc<Console>,
) -> Result<Built> {
    let mut devices = Devices::default();
    let mut hosts = Hosts::default();
    for device in &plan.devices {
        devices.attach(vm, ram, |waker| match device {
            DevicePlan::Vsock => {
                let device = VsockDevice::new(Cid::FIRST_GUEST, waker);
                hosts.vsock = Some(device.host());
                hosts.vsock_faults = Some(device.faults());
                Ok(Box::new(device))
            }
            DevicePlan::Balloon => {
                let reclaimer = Box::new(Reclaimer(ram.clone()));
                let (device, host) = Balloon::new(Bytes(plan.memory as u64), reclaimer, waker);
                hosts.balloon = Some(host);
                Ok(Box::new(device))
            }
            DevicePlan::Entropy => {
                let (device, host) = Entropy::new();
                hosts.entropy = Some(host);
                Ok(Box::new(device))
            }
            DevicePlan::Console => {
                let (device, host) = ConsoleDevice::new(sink(console), waker);
                hosts.console = Some(host);
                Ok(Box::new(device))
            }
            DevicePlan::Block { path, readonly, mode } => {
                let disk = Disk { path: path.clone(), readonly: *readonly, mode: *mode };
                let device =
                    BlockDevice::open(&disk, &format!("disk-{}", hosts.disks.len()), waker)?;
                hosts.disk_faults.push(device.faults());
                hosts.disks.push(device.host());
                Ok(Box::new(device))
            }
        })?;
    }
    let (serial, power) = (event()?, event()?);
    for (event, gsi) in [(&serial, layout::SERIAL_GSI), (&power, layout::EVENT_DEVICE_GSI)] {
        vm.register_irqfd(event, gsi).map_err(|error| failed("KVM_IRQFD", error))?;
    }
    let interrupts = LegacyInterrupts { serial, events: power };
    let ports = PortBus::new(interrupts, sink(console));
    let bus = Bus::new(ports, devices.registers());
    Ok(Built { devices, bus, hosts })
}

/// Prints to the machine's console.
fn sink(console: &Arc<Console>) -> ConsoleSink {
    let console = console.clone();
    Box::new(move |bytes| console.append(bytes))
}
