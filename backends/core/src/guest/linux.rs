//! A Linux guest: a kernel of the host's, an initramfs assembled for it, a command line.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::SystemTime;

use super::initramfs::{self, Modules};
use super::kernel::{self, Kernel, Places};
use super::{busybox, files, modules};
use crate::error::{Code, Error, Result};
use crate::spec::{BootSource, Image, MachineSpec};

/// What every Linux guest is told.
///
/// - The console is the first serial port, where a backend does not say otherwise. Its level shows the banner, the command line, warnings
///   and panics, not each driver's greeting: every character costs an exit from the guest.
/// - A panic resets at once, by triple fault: that reaches the host without any driver's help.
/// - The host's TSC needs no watchdog, and there are no further ports, keyboards or mice to probe.
/// - Grace periods are expedited, so that modules load without waiting for idle moments.
#[cfg(not(target_arch = "aarch64"))]
const COMMAND_LINE: &str = "console=ttyS0 loglevel=6 panic=-1 reboot=t tsc=reliable \
    no_timer_check 8250.nr_uarts=1 i8042.noaux i8042.nokbd i8042.nomux i8042.nopnp \
    rcupdate.rcu_expedited=1";

/// What every Linux guest is told: as on x86, without what arm64 does not have. Its backend names
/// the console.
#[cfg(target_arch = "aarch64")]
const COMMAND_LINE: &str = "loglevel=6 panic=-1 rcupdate.rcu_expedited=1";

/// The first disk, and no questions asked by systemd on the first boot of an image.
const ROOT: &str = " root=/dev/vda systemd.firstboot=off";

/// What was read and assembled, by the kernel's path and stamp, and the agent's address.
type Cache = HashMap<(PathBuf, Option<Stamp>, usize), (Image, Image)>;

/// Tells a file from what replaced it.
type Stamp = (SystemTime, u64);

static CACHE: LazyLock<Mutex<Cache>> = LazyLock::new(Mutex::default);

/// Finds and reads the kernel, and assembles its initramfs unless the user gave one.
pub(super) fn resolve(
    spec: &MachineSpec,
    kernel: Option<&Path>,
    initrd: Option<&Path>,
    agent: &'static [u8],
) -> Result<BootSource> {
    let places = Places::host();
    let path = kernel::find(kernel, &places)?;
    let (kernel, initrd) = match initrd {
        Some(initrd) => (files::kernel(&path)?, files::initrd(initrd)?),
        None => assembled(&path, &places, agent)?,
    };
    Ok(BootSource { kernel, initrd: Some(initrd), cmdline: command_line(spec) })
}

/// The kernel and its initramfs; the second call for the same files reads nothing.
fn assembled(path: &Path, places: &Places, agent: &'static [u8]) -> Result<(Image, Image)> {
    let stamp = fs::metadata(path)
        .ok()
        .and_then(|metadata| Some((metadata.modified().ok()?, metadata.len())));
    let key = (path.to_owned(), stamp, agent.as_ptr().addr());
    // Held while assembling: a second machine that starts meanwhile waits rather than repeats.
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(images) = cache.get(&key) {
        return Ok(images.clone());
    }
    let kernel = kernel::open(path, places)?;
    let initrd = assemble(&kernel, agent)?;
    let images = (kernel.image, initrd);
    cache.insert(key, images.clone());
    Ok(images)
}

/// What to do where vmoon carries no agent.
const NO_AGENT: &str = if cfg!(target_os = "macos") {
    "add the guests' target and build again: rustup target add aarch64-unknown-linux-musl"
} else {
    "build vmoon on x86-64 or arm64 Linux"
};

fn assemble(kernel: &Kernel, agent: &[u8]) -> Result<Image> {
    if !busybox::is_static(agent) {
        return Err(Error::new(Code::VmSpec, "this vmoon was built without an agent for Linux")
            .with_hint(NO_AGENT));
    }
    let version = kernel::version(&kernel.image).unwrap_or_else(|| "unknown".to_owned());
    let chosen = kernel.modules.as_deref().map(modules::choose).transpose()?;
    let modules = kernel
        .modules
        .as_deref()
        .zip(chosen.as_deref())
        .map(|(directory, list)| Modules { directory, version: &version, list });
    let bytes = initramfs::assemble(agent, busybox::find().as_ref(), modules.as_ref())?;
    tracing::debug!(kernel = %kernel.image.origin().display(), version, bytes = bytes.len(), "initramfs");
    Ok(Image::read(format!("initramfs for {version}"), bytes))
}

fn command_line(spec: &MachineSpec) -> String {
    let mut line = COMMAND_LINE.to_owned();
    if let Some(name) = spec.name.as_deref().filter(|name| is_host_name(name)) {
        line.push_str(" vmoon.hostname=");
        line.push_str(name);
    }
    if !spec.agent {
        line.push_str(" vmoon.agent=off");
    }
    if let Some(root) = spec.disks.first().filter(|_| spec.root) {
        line.push_str(ROOT);
        line.push_str(if root.readonly { " ro" } else { " rw" });
    }
    line
}

/// Whether a machine's name can be its host name (RFC 1123 section 2.1, within Linux's limit).
fn is_host_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Disk, DiskMode};

    #[test]
    fn the_name_reaches_the_guest_if_it_can_be_a_host_name() {
        let named = |name: &str| {
            command_line(&MachineSpec { name: Some(name.to_owned()), ..MachineSpec::default() })
        };
        assert!(named("web-1").ends_with(" vmoon.hostname=web-1"));
        for wrong in ["", "a b", "x=1", "-a", &"a".repeat(65)] {
            assert!(!named(wrong).contains("vmoon.hostname"), "{wrong:?}");
        }
        let disk = Disk { path: "/d".into(), readonly: true, mode: DiskMode::Overlay };
        let rooted = MachineSpec { disks: vec![disk], root: true, ..MachineSpec::default() };
        assert!(command_line(&rooted).contains(" root=/dev/vda "));
        assert!(command_line(&rooted).ends_with(" ro"));
        let quiet = MachineSpec { agent: false, ..MachineSpec::default() };
        assert!(command_line(&quiet).ends_with(" vmoon.agent=off"));
    }
}
