//! Finds kernels and assembles initramfs images: turns [`crate::spec::Guest`] into a
//! [`BootSource`].
//!
//! A Linux guest is the newest kernel of the host's with the host's modules for it, or those that
//! the environment variables `VMOON_KERNEL` and `VMOON_MODULES` (a directory with a `modules.dep`)
//! or the spec name. Its initramfs is written here: the agent as PID 1, the host's static busybox
//! where there is one, and the modules, copied as they are, that the devices need.

mod busybox;
mod cpio;
mod files;
mod format;
mod initramfs;
mod kernel;
mod linux;
mod modules;

pub use format::KernelFormat;

use std::path::PathBuf;

use crate::error::{Code, Error, Result};
use crate::spec::{BootSource, Guest, Image, MachineSpec};

/// The guest programs that the binary carries.
#[derive(Clone, Copy, Debug)]
pub struct GuestImages {
    /// The micro guest, an ELF file; none where it could not be built.
    pub micro: Option<&'static [u8]>,
    /// The agent: a static ELF executable for Linux.
    pub agent: &'static [u8],
}

/// Finds, checks and reads the files of the guest that `spec` asks for. Blocks.
///
/// # Errors
/// `vm.spec`, `file.not_found`, `file.permission` or `file.io`, each with what to do about it.
pub fn resolve(spec: &MachineSpec, images: &GuestImages) -> Result<BootSource> {
    let mut boot = match &spec.guest {
        Guest::Micro => micro(images)?,
        Guest::Linux { kernel, initrd } => {
            linux::resolve(spec, kernel.as_deref(), initrd.as_deref(), images.agent)?
        }
        Guest::Kernel { kernel, initrd } => BootSource {
            kernel: files::kernel(kernel)?,
            initrd: initrd.as_deref().map(files::initrd).transpose()?,
            cmdline: String::new(),
        },
    };
    if let Some(user) = &spec.cmdline {
        if !boot.cmdline.is_empty() {
            boot.cmdline.push(' ');
        }
        boot.cmdline.push_str(user);
    }
    Ok(boot)
}

/// The kernel that `guest = "linux"` would run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinuxKernel {
    /// Its file.
    pub path: PathBuf,
    /// The version that the file says it has.
    pub version: Option<String>,
    /// The directory of its modules; none for a kernel without any.
    pub modules: Option<PathBuf>,
}

/// Finds the kernel for `guest = "linux"`. Blocks.
///
/// # Errors
/// As [`resolve`].
pub fn linux_kernel() -> Result<LinuxKernel> {
    let places = kernel::Places::host();
    let path = kernel::find(None, &places)?;
    let found = kernel::open(&path, &places)?;
    Ok(LinuxKernel { path, version: kernel::version(&found.image), modules: found.modules })
}

fn micro(images: &GuestImages) -> Result<BootSource> {
    let bytes = images.micro.ok_or_else(|| {
        Error::new(Code::VmSpec, "this vmoon was built without the micro guest")
            .with_hint("use guest = \"linux\", or build vmoon on x86-64 with a C compiler")
    })?;
    Ok(BootSource { kernel: Image::embedded("micro", bytes), initrd: None, cmdline: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: GuestImages = GuestImages { micro: None, agent: b"" };

    #[test]
    fn the_micro_guest_is_what_the_binary_carries() {
        let spec = MachineSpec { cmdline: Some("a=1".to_owned()), ..MachineSpec::default() };
        let boot = resolve(&spec, &GuestImages { micro: Some(b"elf"), ..NONE }).unwrap();
        assert_eq!((boot.kernel.bytes(), boot.cmdline.as_str()), (b"elf".as_slice(), "a=1"));
        assert!(boot.initrd.is_none());
        assert_eq!(resolve(&spec, &NONE).unwrap_err().code(), Code::VmSpec);
    }

    #[test]
    fn the_users_files_are_booted_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let (kernel, initrd) = (directory.path().join("kernel"), directory.path().join("initrd"));
        std::fs::write(&kernel, b"\x7fELF and more").unwrap();
        let guest = Guest::Kernel { kernel, initrd: Some(initrd.clone()) };
        let spec = MachineSpec { guest, ..MachineSpec::default() };
        let error = resolve(&spec, &NONE).unwrap_err();
        assert_eq!(error.code(), Code::FileNotFound);
        assert!(error.message().contains("initrd"), "{error}");
        std::fs::write(&initrd, b"anything").unwrap();
        let boot = resolve(&spec, &NONE).unwrap();
        assert_eq!(boot.initrd.unwrap().bytes(), b"anything");
        assert_eq!(boot.cmdline, "");
    }
}
