//! A QEMU that is scripted by hand.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::io::{FdFlags, fcntl_setfd};
use tempfile::TempDir;
use vmoon_core::BootSource;
use vmoon_core::spec::{Guest, MachineSpec};

use super::monitor::Monitor;

/// What a machine is given that can be had from its shell alone: no agent, but the drivers that
/// vmoon's guest has as well.
const DRIVERS: &str = "while read m; do insmod $m; done </etc/vmoon/modules 2>/dev/null; echo =$?";

/// A command, and how its output and its status come to the host.
const COMMAND: &str = "sh -c 'echo here'; echo =$?";

const DEADLINE: Duration = Duration::from_mins(2);

/// A running QEMU. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Plain {
    child: Child,
    pub(super) monitor: Monitor,
    console: UnixStream,
    folder: TempDir,
}

impl Plain {
    /// Boots the guest until it is ready; how long that took.
    pub(super) fn boot(spec: &MachineSpec, files: &BootSource) -> Result<(Self, Duration)> {
        let folder = TempDir::new()?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(path("kernel"), files.kernel.bytes())?;
        File::create(path("image"))?;
        let (monitor, monitor_end) = UnixStream::pair()?;
        let (console, console_end) = UnixStream::pair()?;
        console.set_read_timeout(Some(DEADLINE))?;
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg"])
            .args(["-cpu", "max", "-m", &format!("{}B", spec.memory.get())])
            .args(["-mon", "chardev=monitor,mode=control", "-kernel", &path("kernel")]);
        for (name, end) in [("monitor", &monitor_end), ("console", &console_end)] {
            fcntl_setfd(end, FdFlags::empty())?;
            command.args(["-chardev", &format!("socket,id={name},fd={}", end.as_raw_fd())]);
        }
        let mut line = files.cmdline.clone();
        if spec.guest == Guest::Micro {
            command
                .args(["-machine", "microvm,ioapic2=off,acpi=off"])
                .args(["-global", "virtio-mmio.force-legacy=false"])
                .args(["-device", "virtio-balloon-device", "-device", "virtio-rng-device"])
                .args(["-device", "virtio-serial-device,id=serial"])
                .args(["-device", "virtconsole,chardev=console,bus=serial.0"]);
        } else {
            fs::write(path("initrd"), files.initrd.as_ref().context("no initramfs")?.bytes())?;
            line.push_str(" rdinit=/bin/sh");
            command
                .args(["-machine", "pc", "-initrd", &path("initrd"), "-serial", "chardev:console"])
                .args(["-device", "virtio-balloon-pci", "-device", "virtio-rng-pci"])
                .args(["-device", "virtio-serial-pci"]);
        }
        command.args(["-append", &line]).stdin(Stdio::null());
        let begun = Instant::now();
        let child = command.spawn().context("qemu-system-x86_64 cannot be started")?;
        drop((monitor_end, console_end));
        let mut plain = Self { child, monitor: Monitor::new(monitor)?, console, folder };
        if spec.guest == Guest::Micro {
            plain.wait("ready")?;
        } else {
            plain.wait("# ")?;
            plain.type_line(DRIVERS)?;
        }
        let time = begun.elapsed();
        let image = plain.folder.path().join("image");
        plain.monitor.add_image(&image.display().to_string())?;
        Ok((plain, time))
    }

    /// Reads the console until it shows `text`.
    fn wait(&mut self, text: &str) -> Result<()> {
        let mut shown = Vec::new();
        let mut bytes = [0; 4096];
        while !shown.windows(text.len()).any(|window| window == text.as_bytes()) {
            match self.console.read(&mut bytes)? {
                0 => bail!("QEMU ended: {}", String::from_utf8_lossy(&shown)),
                count => shown.extend(&bytes[..count]),
            }
        }
        Ok(())
    }

    /// Types a line that ends by showing its status, which must be zero, and waits for the prompt.
    fn type_line(&mut self, line: &str) -> Result<()> {
        self.console.write_all(format!("{line}\n").as_bytes())?;
        // The terminal shows what was typed, where no digit follows the sign.
        self.wait("=0\r\n")
    }

    /// Runs a command; how long it took.
    pub(super) fn run(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.type_line(COMMAND)?;
        Ok(begun.elapsed())
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // Both fail only for a process that has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
