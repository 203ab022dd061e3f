//! From a spec to what the framework is asked for.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vmoon_core::guest::KernelFormat;
use vmoon_core::spec::{BootSource, DiskMode, Guest, Identity, MachineSpec};
use vmoon_core::{Bytes, Cid, Code, Error, Result};

use crate::host::HostFacts;

/// The tag by which a guest mounts Rosetta (virtiofs).
pub const ROSETTA_TAG: &str = "rosetta";
/// The CID of every guest of the framework.
const CID: Cid = Cid(3);
/// The longest tag of a shared directory (virtio 1.3 section 5.11.4).
const MOST_TAG: usize = 36;

/// All that the framework must know of a machine but where its files are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools, reason = "each is a device of its own")]
pub struct Plan {
    /// The kernel's command line.
    pub cmdline: String,
    /// Whether there is an initramfs.
    pub initrd: bool,
    /// Number of vCPUs.
    pub cpus: u32,
    /// Size of RAM.
    pub memory: Bytes,
    /// Block devices, in order.
    pub disks: Vec<PlannedDisk>,
    /// Shared directories.
    pub shares: Vec<PlannedShare>,
    /// The address of the network interface behind NAT, if there is one.
    pub mac: Option<[u8; 6]>,
    /// A vsock device.
    pub vsock: bool,
    /// A memory balloon.
    pub balloon: bool,
    /// An entropy device.
    pub entropy: bool,
    /// Rosetta, by the tag [`ROSETTA_TAG`].
    pub rosetta: bool,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedDisk {
    /// The user's image.
    pub image: PathBuf,
    /// Whether the guest may only read.
    pub readonly: bool,
    /// Whether the machine writes to a clone of the image, which snapshots cover.
    pub cloned: bool,
}

/// A shared directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedShare {
    /// The directory.
    pub path: PathBuf,
    /// Its tag.
    pub tag: String,
    /// Whether the guest may only read.
    pub readonly: bool,
}

/// Where a machine's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: Option<PathBuf>,
    /// The disks, in order.
    pub disks: Vec<PathBuf>,
}

impl Plan {
    /// The plan for a machine.
    ///
    /// # Errors
    /// `vm.spec` and `backend.unsupported` for what the framework would refuse.
    pub fn new(
        spec: &MachineSpec,
        identity: &Identity,
        boot: &BootSource,
        host: &HostFacts,
    ) -> Result<Self> {
        check_guest(spec, boot)?;
        check_memory(spec.memory, host.memory)?;
        if let Some(cid) = spec.vsock.and_then(|vsock| vsock.cid)
            && cid != CID
        {
            return Err(unsupported("vsock.cid", format!("every guest of vz has the CID {CID}"))
                .with_hint("leave the CID out"));
        }
        spec.shares.iter().try_for_each(|share| check_tag(&share.tag, spec.rosetta))?;
        let disks = spec.disks.iter().map(|disk| PlannedDisk {
            image: disk.path.clone(),
            readonly: disk.readonly,
            cloned: disk.mode == DiskMode::Overlay && !disk.readonly,
        });
        let shares = spec.shares.iter().map(|share| PlannedShare {
            path: share.path.clone(),
            tag: share.tag.clone(),
            readonly: share.readonly,
        });
        Ok(Self {
            cmdline: with_console(&boot.cmdline),
            initrd: boot.initrd.is_some(),
            cpus: spec.cpus,
            memory: spec.memory,
            disks: disks.collect(),
            shares: shares.collect(),
            mac: spec.net.then_some(identity.mac),
            vsock: spec.vsock.is_some(),
            balloon: spec.balloon,
            entropy: spec.entropy,
            rosetta: spec.rosetta,
        })
    }

    /// Refuses a run that must be the same each time to a guest that draws from the framework's
    /// entropy device.
    ///
    /// # Errors
    /// `backend.unsupported`.
    pub fn check_deterministic(&self, deterministic: bool) -> Result<()> {
        if deterministic && self.entropy {
            return Err(unsupported(
                "deterministic",
                "the entropy device of vz gives other bytes in every run".to_owned(),
            )
            .with_hint("make the machine with entropy = false"));
        }
        Ok(())
    }

    /// The devices that the framework cannot save, by the names of their keys in a spec. Its own
    /// check has the last word, see [`crate::framework::Created::unsaveable`].
    pub fn unsaveable_devices(&self) -> Vec<&'static str> {
        [(!self.shares.is_empty(), "shares"), (self.rosetta, "rosetta")]
            .into_iter()
            .filter_map(|(there, key)| there.then_some(key))
            .collect()
    }
}

/// The framework boots what its processor's boot protocol starts: no ELF files.
fn check_guest(spec: &MachineSpec, boot: &BootSource) -> Result<()> {
    if spec.guest == Guest::Micro {
        return Err(unsupported("guest", "the built-in guest is for KVM".to_owned())
            .with_hint("use guest = \"linux\""));
    }
    match KernelFormat::recognise(boot.kernel.bytes()) {
        Some(KernelFormat::BzImage | KernelFormat::Arm64Image) => Ok(()),
        _ => Err(Error::new(
            Code::VmSpec,
            format!("vz does not boot {}, an ELF file", boot.kernel.origin().display()),
        )
        .with_hint("give the kernel's `Image` (arm64) or bzImage (x86-64)")
        .with_detail("path", boot.kernel.origin().display().to_string())),
    }
}

fn check_memory(wanted: Bytes, (least, most): (Bytes, Bytes)) -> Result<()> {
    let mebibyte = Bytes::mib(1).get();
    let problem = if !wanted.get().is_multiple_of(mebibyte) {
        "is not a whole number of MiB"
    } else if !(least..=most).contains(&wanted) {
        "is not what a machine may have here"
    } else {
        return Ok(());
    };
    Err(Error::new(Code::VmSpec, format!("{wanted} of memory {problem}"))
        .with_hint(format!("give vz whole MiB from {least} to {most}"))
        .with_detail("key", "memory"))
}

fn check_tag(tag: &str, rosetta: bool) -> Result<()> {
    let problem = if tag.is_empty() || tag.len() > MOST_TAG {
        format!("has {} bytes; it must have from 1 to {MOST_TAG}", tag.len())
    } else if rosetta && tag == ROSETTA_TAG {
        "is the tag of Rosetta's own share".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::new(Code::VmSpec, format!("the tag {tag:?} of a shared directory {problem}"))
        .with_hint("choose another tag")
        .with_detail("key", "shares"))
}

/// The console is the virtio console, unless the user chose one; the last of them is the one that
/// programs get (Linux Documentation/admin-guide/serial-console.rst).
fn with_console(cmdline: &str) -> String {
    let is_chosen = |word: &str| word.starts_with("console=") && word != "console=ttyS0";
    if cmdline.split_ascii_whitespace().any(is_chosen) {
        return cmdline.to_owned();
    }
    format!("{cmdline} console=hvc0").trim_start().to_owned()
}

fn unsupported(feature: &str, message: String) -> Error {
    Error::new(Code::BackendUnsupported, message)
        .with_detail("backend", "vz")
        .with_detail("feature", feature)
}

#[cfg(test)]
pub(crate) mod tests {
    use vmoon_core::MachineId;
    use vmoon_core::spec::{Disk, Image, Share, VsockSpec};

    use super::*;
    use crate::host::tests::modern;

    pub(crate) fn linux() -> MachineSpec {
        MachineSpec { guest: Guest::Linux { kernel: None, initrd: None }, ..MachineSpec::default() }
    }

    pub(crate) fn boot() -> BootSource {
        let mut kernel = vec![0; 0x40];
        kernel[0x38..0x3c].copy_from_slice(b"ARM\x64");
        BootSource {
            kernel: Image::read("Image", kernel),
            initrd: Some(Image::read("initrd", b"cpio".to_vec())),
            cmdline: "quiet".to_owned(),
        }
    }

    pub(crate) fn identity() -> Identity {
        Identity {
            id: MachineId::random(),
            name: "web".to_owned(),
            cid: CID,
            mac: [2, 0, 0, 0, 0, 1],
        }
    }

    fn plan(spec: &MachineSpec) -> Result<Plan> {
        Plan::new(spec, &identity(), &boot(), &modern())
    }

    fn refusal(spec: &MachineSpec) -> String {
        let error = plan(spec).unwrap_err();
        format!("{}; {}", error.message(), error.hint().unwrap())
    }

    #[test]
    fn a_spec_becomes_a_plan() {
        let disk = |readonly, mode| Disk { path: "a.img".into(), readonly, mode };
        let spec = MachineSpec {
            cpus: 2,
            net: true,
            disks: vec![
                disk(false, DiskMode::Overlay),
                disk(true, DiskMode::Overlay),
                disk(false, DiskMode::Direct),
            ],
            ..linux()
        };
        let plan = plan(&spec).unwrap();
        assert_eq!((plan.cpus, plan.memory, plan.initrd), (2, Bytes::mib(256), true));
        assert_eq!(plan.mac, Some([2, 0, 0, 0, 0, 1]));
        let cloned: Vec<bool> = plan.disks.iter().map(|disk| disk.cloned).collect();
        assert_eq!(cloned, [true, false, false]);
        assert_eq!(plan.cmdline, "quiet console=hvc0");
        assert!(plan.unsaveable_devices().is_empty());
        assert!(plan.check_deterministic(true).is_err() && plan.check_deterministic(false).is_ok());
        assert!(Plan { entropy: false, ..plan }.check_deterministic(true).is_ok());
    }

    #[test]
    fn the_console_is_the_users_if_he_chose_one() {
        assert_eq!(with_console(""), "console=hvc0");
        assert_eq!(with_console("console=ttyS0 quiet"), "console=ttyS0 quiet console=hvc0");
        assert_eq!(with_console("console=tty0 quiet"), "console=tty0 quiet");
    }

    #[test]
    fn what_the_framework_cannot_give_is_refused() {
        assert!(refusal(&MachineSpec::default()).contains("guest = \"linux\""));
        let vsock = Some(VsockSpec { cid: Some(Cid(7)) });
        assert!(refusal(&MachineSpec { vsock, ..linux() }).contains("CID 3"));
        let odd = Bytes(Bytes::mib(64).get() + 4096);
        assert!(refusal(&MachineSpec { memory: odd, ..linux() }).contains("whole"));
        assert!(refusal(&MachineSpec { memory: Bytes::gib(64), ..linux() }).contains("16GiB"));
        let mut elf = boot();
        elf.kernel = Image::read("vmlinux", b"\x7fELF".to_vec());
        let error = Plan::new(&linux(), &identity(), &elf, &modern()).unwrap_err();
        assert!(error.message().contains("vmlinux"), "{error}");
    }

    #[test]
    fn shares_need_tags_of_their_own_and_rule_out_saving() {
        let share = |tag: &str| MachineSpec {
            shares: vec![Share { path: "/tmp".into(), tag: tag.to_owned(), readonly: true }],
            rosetta: true,
            ..linux()
        };
        assert!(refusal(&share("")).contains("from 1 to 36"));
        assert!(refusal(&share(&"x".repeat(37))).contains("from 1 to 36"));
        assert!(refusal(&share("rosetta")).contains("Rosetta"));
        assert_eq!(plan(&share("src")).unwrap().unsaveable_devices(), ["shares", "rosetta"]);
    }

    #[test]
    fn a_plan_survives_its_file() {
        let plan = plan(&linux()).unwrap();
        let json = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
    }
}
