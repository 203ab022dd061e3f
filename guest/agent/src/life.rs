//! The beginning of a life: a restored guest gets fresh entropy and the host's wall clock.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use vmoon_protocol::message::Life;

use crate::service::Platform;
use crate::sys;

/// `RNDADDENTROPY` of linux/random.h: `_IOW('R', 0x03, int[2])`.
const ADD_ENTROPY: libc::Ioctl = 0x4008_5203;
/// `RNDRESEEDCRNG` of linux/random.h: `_IO('R', 0x07)`.
const RESEED: libc::Ioctl = 0x5207;

/// `struct rand_pool_info` with 32 bytes.
#[repr(C)]
struct Pool {
    entropy_bits: libc::c_int,
    length: libc::c_int,
    bytes: [u8; 32],
}

/// Applies a new life to this machine.
pub(crate) fn begin(life: &Life, platform: Platform) -> io::Result<()> {
    if platform == Platform::Development {
        eprintln!("vmoon-agent: life {} begins", life.epoch);
        return Ok(());
    }
    add_entropy(&life.entropy)?;
    set_wall_clock(life.unix_ns)
}

fn add_entropy(entropy: &[u8; 32]) -> io::Result<()> {
    let device = OpenOptions::new().write(true).open("/dev/urandom")?;
    let pool = Pool { entropy_bits: 256, length: 32, bytes: *entropy };
    // SAFETY: RNDADDENTROPY reads two integers and `length` bytes after them, which `Pool` holds.
    sys::check(unsafe { libc::ioctl(device.as_raw_fd(), ADD_ENTROPY, &raw const pool) })?;
    // The generator takes up new entropy now, not when its key is five minutes old.
    // SAFETY: RNDRESEEDCRNG takes no argument.
    sys::check(unsafe { libc::ioctl(device.as_raw_fd(), RESEED) })?;
    Ok(())
}

fn set_wall_clock(unix_ns: u64) -> io::Result<()> {
    let time = sys::timespec(Duration::from_nanos(unix_ns));
    // SAFETY: `time` is a whole `timespec` that outlives the call.
    sys::check(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) })?;
    Ok(())
}
