//! `/dev/kvm`, opened once, and what it can do.

use std::io;
use std::sync::OnceLock;

use kvm_bindings::{CpuId, KVM_API_VERSION};
use kvm_ioctls::{Cap, Kvm};
use vmoon_core::{Code, Error, Result};

use crate::boot::cpuid;

/// KVM on this host.
#[derive(Debug)]
pub(crate) struct KvmHost {
    /// The open device.
    pub(crate) kvm: Kvm,
    /// The CPUID of a vCPU, without its ids.
    pub(crate) cpuid: CpuId,
    /// The length of a vCPU's extended state in bytes (KVM API section 4.134).
    pub(crate) extended_length: usize,
    /// Whether vCPUs have XSAVE.
    pub(crate) has_xsave: bool,
    /// Whether guest code that does not know this KVM's ABI is emulated, one instruction after
    /// the other: the host has no hardware virtualization.
    pub(crate) emulates: bool,
}

/// CPUID leaf 1, ECX: XSAVE.
const XSAVE: u32 = 1 << 26;

/// What vmoon cannot do without.
const REQUIRED: &[(Cap, &str)] = &[
    (Cap::Irqchip, "an in-kernel interrupt controller"),
    (Cap::Irqfd, "irqfd"),
    (Cap::Ioeventfd, "ioeventfd"),
    (Cap::UserMemory, "user memory slots"),
    (Cap::ImmediateExit, "immediate exit"),
    (Cap::Pit2, "an in-kernel timer"),
    (Cap::Xcrs, "extended control registers"),
    (Cap::VcpuEvents, "vCPU events"),
    (Cap::SyncRegs, "registers shared with user space"),
];

impl KvmHost {
    /// The device, opened by the first call.
    ///
    /// # Errors
    /// `backend.unavailable`, with what to do.
    pub(crate) fn get() -> Result<&'static Self> {
        static HOST: OnceLock<KvmHost> = OnceLock::new();
        if let Some(host) = HOST.get() {
            return Ok(host);
        }
        let host = Self::open()?;
        Ok(HOST.get_or_init(|| host))
    }

    fn open() -> Result<Self> {
        let kvm = Kvm::new().map_err(|error| unusable(io::Error::from(error)))?;
        let version = kvm.get_api_version();
        if u32::try_from(version) != Ok(KVM_API_VERSION) {
            // What is no KVM answers with an error: -1.
            let error = if version < 0 {
                unavailable("/dev/kvm is not the device of KVM".to_owned())
            } else {
                unavailable(format!("/dev/kvm speaks version {version} of its API"))
            };
            return Err(error.with_hint(
                "see what stands there with ls -l /dev/kvm; modprobe kvm makes it anew",
            ));
        }
        for (capability, name) in REQUIRED {
            if !kvm.check_extension(*capability) {
                return Err(unavailable(format!("this host's KVM lacks {name}")));
            }
        }
        let cpuid = cpuid::template(&kvm)?;
        let extended = kvm.check_extension_int(Cap::Xsave2);
        let extended_length = usize::try_from(extended).unwrap_or(0);
        let has_xsave =
            cpuid.as_slice().iter().any(|entry| entry.function == 1 && entry.ecx & XSAVE != 0);
        Ok(Self { kvm, cpuid, extended_length, has_xsave, emulates: !hardware_virtualization() })
    }
}

/// Whether the processor has VT-x or SVM: without either, what serves `/dev/kvm` emulates.
fn hardware_virtualization() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| {
        text.lines()
            .find(|line| line.starts_with("flags"))
            .is_some_and(|flags| flags.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm")))
    })
}

fn unavailable(message: impl Into<String>) -> Error {
    Error::new(Code::BackendUnavailable, message).with_detail("backend", "kvm")
}

/// Why `/dev/kvm` cannot be opened, and what to do.
fn unusable(error: io::Error) -> Error {
    let (message, hint) = match error.kind() {
        io::ErrorKind::NotFound => (
            "/dev/kvm does not exist",
            "load the module (sudo modprobe kvm_intel, or kvm_amd); enable virtualization in the \
             firmware; inside a virtual machine enable nested virtualization; in a container pass \
             --device /dev/kvm",
        ),
        io::ErrorKind::PermissionDenied => (
            "/dev/kvm may not be opened by this user",
            "join its group (sudo usermod -aG kvm $USER, then log in again), or allow this user \
             (sudo setfacl -m u:$USER:rw /dev/kvm)",
        ),
        _ => ("/dev/kvm cannot be opened", "see the system's log (dmesg | grep -i kvm)"),
    };
    unavailable(message).with_hint(hint).with_source(error)
}
