//! Ends every program and powers off or reboots.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::{mounts, sys};

/// How long programs get to end by themselves.
const PATIENCE: Duration = Duration::from_millis(500);

/// What to do with the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    /// Power off.
    Off,
    /// Reboot.
    Reboot,
}

impl Power {
    /// The command of systemd's and everybody else's.
    const fn verb(self) -> &'static str {
        match self {
            Self::Off => "poweroff",
            Self::Reboot => "reboot",
        }
    }
}

/// Shuts the machine down: through systemd where it runs, otherwise by hand.
pub(crate) fn shut_down(power: Power) {
    if Path::new("/run/systemd/system").exists()
        && Command::new("systemctl").arg(power.verb()).status().is_ok_and(|status| status.success())
    {
        return;
    }
    end_programs();
    sys::sync();
    mounts::release_disks();
    if power == Power::Reboot {
        // A panic resets by triple fault (`reboot=t`), which the host takes for the crash that it
        // is; an orderly reboot goes through ACPI. Absent before Linux 5.11: then as it may.
        let _ = fs::write("/sys/kernel/reboot/type", "acpi");
    }
    act(power);
}

/// Powers off at once: for a guest in which nothing runs.
pub(crate) fn off() {
    act(Power::Off);
}

fn act(power: Power) {
    let command = match power {
        Power::Off => libc::RB_POWER_OFF,
        Power::Reboot => libc::RB_AUTOBOOT,
    };
    // SAFETY: takes an integer; returns only on failure.
    unsafe { libc::reboot(command) };
    let error = std::io::Error::last_os_error();
    eprintln!("vmoon-agent: cannot {}: {error}", power.verb());
}

/// Asks all other programs to end, then makes them.
fn end_programs() {
    signal_all(libc::SIGTERM);
    let until = Instant::now() + PATIENCE;
    while others_run() && Instant::now() < until {
        thread::sleep(Duration::from_millis(2));
    }
    signal_all(libc::SIGKILL);
}

fn signal_all(signal: libc::c_int) {
    // SAFETY: takes two integers; −1 spares the caller and PID 1.
    unsafe { libc::kill(-1, signal) };
}

/// Whether a program runs beside this one and PID 1.
fn others_run() -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != 1 && *pid != std::process::id())
        .any(|pid| {
            // Kernel threads and zombies have no command line.
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|text| !text.is_empty())
        })
}
