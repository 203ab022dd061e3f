//! The power button: a child of PID 1 reads the buttons that the kernel shows as input devices,
//! and tells PID 1 to power off. So a host without the agent's ear is heard too.

use std::fs::{self, File};
use std::io::{self, Read};

use crate::sys;

/// `struct input_event` of linux/input.h on x86-64: a time of 16 bytes, type, code, value.
const EVENT_LEN: usize = 24;
/// `EV_KEY` of linux/input-event-codes.h.
const KEY: u16 = 1;
/// `KEY_POWER` of linux/input-event-codes.h.
const POWER: u16 = 116;

/// Starts the child, if there is a button to read.
pub(crate) fn watch() -> io::Result<()> {
    let mut devices = open_all();
    if devices.is_empty() {
        return Ok(());
    }
    // SAFETY: PID 1 has one thread, so that the child may do whatever the parent could.
    if sys::check(unsafe { libc::fork() })? == 0 {
        let outcome = wait_for_power(&mut devices);
        if let Err(error) = outcome {
            eprintln!("vmoon-agent: the power button: {error}");
        }
        std::process::exit(0);
    }
    Ok(())
}

fn open_all() -> Vec<File> {
    let Ok(entries) = fs::read_dir("/dev/input") else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"event"))
        .filter_map(|entry| File::open(entry.path()).ok())
        .collect()
}

/// Reads until the first press; PID 1 does not need to hear of a second.
fn wait_for_power(devices: &mut [File]) -> io::Result<()> {
    loop {
        let mut entries: Vec<_> =
            devices.iter().map(|device| sys::entry(Some(device), libc::POLLIN)).collect();
        sys::poll(&mut entries, None)?;
        for (device, entry) in devices.iter_mut().zip(&entries) {
            if entry.revents == 0 {
                continue;
            }
            let mut buffer = [0; 16 * EVENT_LEN];
            let count = device.read(&mut buffer)?;
            if buffer[..count].chunks_exact(EVENT_LEN).any(is_power_press) {
                // SAFETY: takes two integers. It is the signal of busybox's `poweroff`.
                sys::check(unsafe { libc::kill(1, libc::SIGUSR2) })?;
                return Ok(());
            }
        }
    }
}

fn is_power_press(event: &[u8]) -> bool {
    let half = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    half(16) == KEY && half(18) == POWER && event[20] == 1
}
