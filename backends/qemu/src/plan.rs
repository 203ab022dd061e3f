//! What a machine is made of, and how QEMU is told.

use std::os::fd::RawFd;

use serde::{Deserialize, Serialize};
use serde_json::json;
use vmoon_core::spec::{Disk, Guest, MachineSpec};
use vmoon_core::{Cid, Code, Error, Result};

use crate::process::program::Program;
use crate::serve::Ends;

/// Where QEMU's microvm has the registers of its virtio devices, and their interrupt lines.
const MMIO_BASE: u64 = 0xfeb0_0000;
const MMIO_SIZE: u64 = 512;
const MMIO_FIRST_GSI: usize = 16;
/// How many there are with one I/O APIC, which is all that the built-in guest knows.
const MMIO_DEVICES: usize = 8;
/// How many fit into the slots of a PC's PCI bus beside the chipset.
const PCI_DEVICES: usize = 28;

/// The registers of QEMU's generic event device for power (ACPI 6.5, section 4.8.3.7): sleep
/// control, and the value for soft-off; reset, and its value.
const SLEEP_CONTROL: (u32, u8) = (0xfea0_0200, 0x34);
const RESET: (u32, u8) = (0xfea0_0202, 0x42);

/// What a Linux guest is told beside what every backend tells it. QEMU never lets the processor's
/// time stamp go back, so after a restore it would jump to where it was before: the guest would
/// believe that it had been stuck for as long. The other clocks go back.
const LINUX_CLOCK: &str = " tsc=unstable clocksource=hpet";

/// What kind of guest it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// The one that is built in.
    Micro,
    /// A Linux with vmoon's command line, which ends by a triple fault when it panics.
    Linux,
    /// Another kernel.
    Other,
}

/// The hardware of a machine: the same for every fork of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    /// Bytes of RAM.
    pub(crate) memory: u64,
    pub(crate) cpus: u32,
    pub(crate) vsock: bool,
    pub(crate) balloon: bool,
    pub(crate) entropy: bool,
    pub(crate) disks: Vec<Disk>,
    pub(crate) guest: Kind,
}

/// What a new process boots; one that goes on from a snapshot boots nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start<'a> {
    Firmware(RawFd),
    Kernel { kernel: RawFd, initrd: Option<RawFd>, command_line: &'a str },
}

impl Plan {
    /// The plan for a machine as described.
    ///
    /// # Errors
    /// `vm.spec` for more disks than fit.
    pub(crate) fn new(spec: &MachineSpec) -> Result<Self> {
        let plan = Self {
            memory: spec.memory.get(),
            cpus: spec.cpus,
            vsock: spec.vsock.is_some(),
            balloon: spec.balloon,
            entropy: spec.entropy,
            disks: spec.disks.clone(),
            guest: match spec.guest {
                Guest::Micro => Kind::Micro,
                Guest::Linux { .. } => Kind::Linux,
                Guest::Kernel { .. } => Kind::Other,
            },
        };
        let most = if plan.guest == Kind::Micro { MMIO_DEVICES } else { PCI_DEVICES };
        if plan.devices() > most {
            return Err(Error::new(
                Code::VmSpec,
                format!("a machine with this guest has at most {most} devices in QEMU"),
            )
            .with_hint("give it fewer disks"));
        }
        Ok(plan)
    }

    /// How many virtio devices it has; one is always the console.
    fn devices(&self) -> usize {
        [self.vsock, self.balloon, self.entropy, true].into_iter().filter(|has| *has).count()
            + self.disks.len()
    }

    /// What the built-in guest, which reads no ACPI tables, must be told of its machine.
    pub(crate) fn micro_parameters(&self) -> String {
        let mut words: Vec<String> = (0..self.devices())
            .map(|index| {
                let address = MMIO_BASE + MMIO_SIZE * index as u64;
                let gsi = MMIO_FIRST_GSI + index;
                format!("virtio_mmio.device={MMIO_SIZE}@{address:#x}:{gsi}")
            })
            .collect();
        let ((sleep, off), (reset, value)) = (SLEEP_CONTROL, RESET);
        words.push(format!("vmoon.poweroff={sleep:#x}:{off:#x}"));
        words.push(format!("vmoon.reset={reset:#x}:{value:#x}"));
        words.join(" ")
    }

    /// What is appended to the command line of a Linux guest.
    pub(crate) fn linux_parameters(&self) -> &'static str {
        if self.guest == Kind::Linux { LINUX_CLOCK } else { "" }
    }

    /// QEMU's command line.
    pub(crate) fn arguments(
        &self,
        program: &Program,
        ends: &Ends,
        ram: RawFd,
        vhost: RawFd,
        cid: Cid,
        start: Option<Start<'_>>,
    ) -> Vec<String> {
        let mut line = Line::default();
        // The built-in guest finds its devices by its command line and is up in milliseconds. Linux
        // wants a PC: a microvm has no timer that it can use without KVM.
        line.pair(
            "-machine",
            if self.guest == Kind::Micro {
                "microvm,acpi=on,ioapic2=off,memory-backend=ram,auto-kernel-cmdline=off,\
                 x-option-roms=off"
            } else {
                "pc,usb=off,vmport=off,memory-backend=ram,max-ram-below-4g=3G"
            },
        );
        if program.kvm {
            line.pair("-accel", "kvm");
            line.pair("-cpu", "host");
        } else {
            line.pair("-accel", "tcg,thread=multi");
            // Five-level page tables make every miss of the TLB dearer, and no guest needs them.
            line.pair("-cpu", "max,la57=off");
        }
        let memory = self.memory;
        line.pair("-m", format!("{memory}B"));
        // With room for a second processor QEMU's translator keeps the guest's memory barriers. It
        // drops them for a lone one (before QEMU 8.1), but this process looks at the rings as well.
        line.pair("-smp", format!("cpus={},maxcpus={}", self.cpus, self.cpus.max(2)));
        line.words(&["-S", "-nodefaults", "-no-user-config", "-display", "none"]);
        line.pair(
            "-object",
            format!(
                "memory-backend-file,id=ram,mem-path=/proc/self/fd/{ram},share=on,size={memory}"
            ),
        );
        // The guest ends; QEMU waits for a restore.
        line.pair("-action", "reboot=shutdown,shutdown=pause,panic=pause");
        line.socket("monitor", ends.monitor());
        line.pair("-mon", "chardev=monitor,mode=control");
        line.socket("serial", ends.serial());
        line.pair("-serial", "chardev:serial");
        line.pair("-device", "pvpanic");
        line.pair("-global", "virtio-mmio.force-legacy=false");
        self.add_devices(&mut line, ends, vhost, cid);
        match start {
            Some(Start::Firmware(image)) => line.pair("-bios", format!("/proc/self/fd/{image}")),
            Some(Start::Kernel { kernel, initrd, command_line }) => {
                line.pair("-kernel", format!("/proc/self/fd/{kernel}"));
                if let Some(initrd) = initrd {
                    line.pair("-initrd", format!("/proc/self/fd/{initrd}"));
                }
                line.pair("-append", command_line);
            }
            None => {}
        }
        line.0
    }

    /// The virtio devices, in the order of their addresses.
    fn add_devices(&self, line: &mut Line, ends: &Ends, vhost: RawFd, cid: Cid) {
        let (mut place, micro) = (0, self.guest == Kind::Micro);
        let mut device = |line: &mut Line, name: &str, options: String| {
            let (transport, bus) = if micro {
                ("device", format!("virtio-mmio-bus.{place}"))
            } else {
                // The first slots are the chipset's.
                ("pci-non-transitional", format!("pci.0,addr={:#x}", place + 2))
            };
            place += 1;
            line.pair("-device", format!("{name}-{transport},{options}bus={bus}"));
        };
        if self.vsock {
            device(line, "vhost-vsock", format!("vhostfd={vhost},guest-cid={cid},"));
        }
        if self.balloon {
            device(line, "virtio-balloon", "id=balloon,".to_owned());
        }
        if self.entropy {
            line.socket("entropy", ends.entropy());
            line.pair("-object", "rng-egd,id=entropy,chardev=entropy");
            device(line, "virtio-rng", "rng=entropy,".to_owned());
        }
        line.socket("console", ends.console());
        device(line, "virtio-serial", "id=serial,".to_owned());
        line.pair("-device", "virtconsole,chardev=console,bus=serial.0");
        for (index, disk) in self.disks.iter().enumerate() {
            let node = json!({
                "driver": "nbd",
                "node-name": format!("disk-{index}"),
                "read-only": disk.readonly,
                "server": { "type": "fd", "str": ends.disk(index).to_string() },
            });
            line.pair("-blockdev", node.to_string());
            device(line, "virtio-blk", format!("drive=disk-{index},serial=disk-{index},"));
        }
    }
}

#[derive(Debug, Default)]
struct Line(Vec<String>);

impl Line {
    fn words(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(|word| (*word).to_owned()));
    }

    fn pair(&mut self, option: &str, value: impl Into<String>) {
        self.0.push(option.to_owned());
        self.0.push(value.into());
    }

    fn socket(&mut self, name: &str, descriptor: RawFd) {
        self.pair("-chardev", format!("socket,id={name},fd={descriptor}"));
    }
}

#[cfg(test)]
mod tests {
    use vmoon_core::spec::DiskMode;

    use super::*;

    #[test]
    fn the_built_in_guest_is_told_of_each_device() {
        let spec = MachineSpec { balloon: false, ..MachineSpec::default() };
        let line = Plan::new(&spec).unwrap().micro_parameters();
        assert!(line.starts_with("virtio_mmio.device=512@0xfeb00000:16 "), "{line}");
        assert_eq!(line.matches("virtio_mmio.device").count(), 3);
        assert!(line.contains("vmoon.poweroff=0xfea00200:0x34"), "{line}");
    }

    #[test]
    fn too_many_disks_are_refused() {
        let disk = Disk { path: "x".into(), readonly: true, mode: DiskMode::Overlay };
        let with = |count: usize| {
            Plan::new(&MachineSpec { disks: vec![disk.clone(); count], ..MachineSpec::default() })
        };
        assert!(with(4).is_ok());
        assert_eq!(with(5).unwrap_err().code(), Code::VmSpec);
    }
}
