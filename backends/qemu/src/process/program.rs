//! Finds QEMU and checks that it can do what machines need.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use vmoon_core::{Code, Error, Result};

/// The program.
const NAME: &str = "qemu-system-x86_64";

/// The oldest version that is known to work.
const OLDEST: (u32, u32) = (7, 2);

/// What machines are made of.
const DEVICES: [&str; 8] = [
    "vhost-vsock-device",
    "vhost-vsock-pci-non-transitional",
    "virtio-balloon-device",
    "virtio-blk-device",
    "virtio-rng-device",
    "virtio-serial-device",
    "virtconsole",
    "pvpanic",
];

const PACKAGES: &str =
    "install qemu-system-x86 (Debian, Ubuntu, Arch) or qemu-system-x86-core (Fedora)";

/// A QEMU that works.
#[derive(Debug)]
pub(crate) struct Program {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its version, as it says it: `7.2.22`. Saved machines can be loaded by no other.
    pub(crate) version: String,
    /// Whether it can use the processor's virtualization.
    pub(crate) kvm: bool,
}

impl Program {
    /// The host's QEMU; looked for once.
    ///
    /// # Errors
    /// `backend.unavailable`, with the reason and what to do.
    pub(crate) fn get() -> Result<&'static Self> {
        static FOUND: OnceLock<Result<Program>> = OnceLock::new();
        FOUND.get_or_init(Self::find).as_ref().map_err(Clone::clone)
    }

    fn find() -> Result<Self> {
        let path = std::env::var_os("PATH")
            .and_then(|paths| search(&paths))
            .ok_or_else(|| unavailable(format!("{NAME} is not installed")).with_hint(PACKAGES))?;
        // Each takes QEMU some 50 ms: they run side by side.
        let (version, devices, machines) = std::thread::scope(|scope| {
            let devices = scope.spawn(|| ask(&path, &["-device", "help"]));
            let machines = scope.spawn(|| ask(&path, &["-machine", "help"]));
            let version = ask(&path, &["--version"]);
            let join = |it: std::thread::ScopedJoinHandle<'_, Result<String>>| {
                it.join().unwrap_or_else(|_| Err(unavailable(format!("{NAME} cannot be asked"))))
            };
            (version, join(devices), join(machines))
        });
        let version = check_version(&version?)?;
        check_devices(&devices?, &machines?, &version)?;
        check_kernel()?;
        Ok(Self { path, version, kvm: kvm_works() })
    }
}

fn search(paths: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(paths).map(|folder| folder.join(NAME)).find(|path| path.is_file())
}

fn ask(path: &Path, arguments: &[&str]) -> Result<String> {
    let output =
        Command::new(path).args(arguments).stdin(Stdio::null()).output().map_err(|error| {
            unavailable(format!("{} cannot be run", path.display())).with_source(error)
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(unavailable(format!("{} fails: {}", path.display(), said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The version in `QEMU emulator version 7.2.22 (Debian …)`.
fn check_version(text: &str) -> Result<String> {
    let version = text
        .split_whitespace()
        .skip_while(|word| *word != "version")
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => Ok(version),
        (Some(_), Some(_)) => Err(unavailable(format!(
            "{NAME} is version {version}; vmoon needs {}.{} or newer",
            OLDEST.0, OLDEST.1
        ))
        .with_hint(PACKAGES)),
        _ => Err(unavailable(format!("{NAME} does not tell its version"))),
    }
}

fn check_devices(devices: &str, machines: &str, version: &str) -> Result<()> {
    let lacks = |what: &str| {
        unavailable(format!("{NAME} {version} has no {what}"))
            .with_hint(format!("this build of QEMU leaves it out: {PACKAGES}"))
    };
    if !machines.lines().any(|line| line.split_whitespace().next() == Some("microvm")) {
        return Err(lacks("machine type microvm"));
    }
    match DEVICES.iter().find(|device| !devices.contains(&format!("name \"{device}\""))) {
        Some(device) => Err(lacks(&format!("device {device}"))),
        None => Ok(()),
    }
}

/// Serving QEMU's vsock device takes two calls that containers may forbid.
fn check_kernel() -> Result<()> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())
        .and_then(|own| pidfd_getfd(own, 2, PidfdGetfdFlags::empty()));
    match own {
        // A process without a standard error has nothing to duplicate, but was allowed to try.
        Ok(_) | Err(rustix::io::Errno::BADF) => Ok(()),
        Err(error) => Err(unavailable("this process may not use pidfd_getfd")
            .with_hint(
                "in a container allow it (docker run --cap-add SYS_PTRACE); Linux 5.6 has it",
            )
            .with_source(std::io::Error::from(error))),
    }
}

/// Whether a guest really runs on `/dev/kvm`: what serves it on a processor without VT-x or SVM
/// emulates too little.
fn kvm_works() -> bool {
    let usable = std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
    usable
        && std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| {
            text.lines().find(|line| line.starts_with("flags")).is_some_and(|flags| {
                flags.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm"))
            })
        })
}

fn unavailable(message: impl Into<String>) -> Error {
    Error::new(Code::BackendUnavailable, message).with_detail("backend", "qemu")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_refused_by_name() {
        let told = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright";
        assert_eq!(check_version(told).unwrap(), "7.2.22");
        assert_eq!(check_version("QEMU emulator version 10.0.2").unwrap(), "10.0.2");
        let old = check_version("QEMU emulator version 6.2.0 (Debian)").unwrap_err();
        assert_eq!(old.code(), Code::BackendUnavailable);
        assert!(old.message().contains("6.2.0") && old.hint().unwrap().contains("Debian"));
        assert!(check_version("something else").is_err());
    }

    #[test]
    fn what_a_build_lacks_is_named() {
        let devices = DEVICES.map(|name| format!("name \"{name}\", bus x")).join("\n");
        let machines = "Supported machines are:\nmicrovm              microvm (i386)\n";
        check_devices(&devices, machines, "7.2").unwrap();
        let fewer = devices.replace("name \"vhost-vsock-device\"", "");
        let error = check_devices(&fewer, machines, "7.2").unwrap_err();
        assert!(error.message().contains("vhost-vsock-device"), "{error}");
        assert!(check_devices(&devices, "q35", "7.2").unwrap_err().message().contains("microvm"));
    }

    #[test]
    fn a_missing_program_is_not_found() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(search(empty.path().as_os_str()), None);
    }
}
