//! Finds kernels and assembles initramfs images: turns [`crate::spec::Guest`] into a
//! [`BootSource`].

mod files;

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
        Guest::Linux { .. } => return Err(Error::new(Code::VmSpec, "no Linux guest yet")),
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

fn micro(images: &GuestImages) -> Result<BootSource> {
    let bytes = images.micro.ok_or_else(|| {
        Error::new(Code::VmSpec, "this vmoon was built without the micro guest")
            .with_hint("use guest = \"linux\", or build vmoon on x86-64 with a C compiler")
    })?;
    Ok(BootSource { kernel: Image::embedded("micro", bytes), initrd: None, cmdline: String::new() })
}
