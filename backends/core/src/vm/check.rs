//! What a spec must fulfil before anything starts.

use std::path::Path;

use crate::disk::format::{Head, ImageFormat};
use crate::error::{Code, Error, Result};
use crate::spec::{Disk, DiskMode, MachineSpec, Share};
use crate::units::Bytes;

/// The least memory of a machine: a kernel, its page tables and the rings of its devices need
/// some megabytes, and less than this fails in the guest without a word.
const LEAST_MEMORY: Bytes = Bytes::mib(16);

/// The unit of a disk, in bytes.
const SECTOR: u64 = 512;

/// Checks what can be checked without a backend.
///
/// # Errors
/// `vm.spec`, and `file.*` for a disk or a share.
pub(super) fn spec(spec: &MachineSpec) -> Result<()> {
    if spec.cpus == 0 {
        return Err(Error::new(Code::VmSpec, "a machine needs at least 1 CPU")
            .with_hint("leave `cpus` out for one CPU")
            .with_detail("key", "cpus"));
    }
    memory(spec.memory, host_memory())?;
    spec.disk_numbers().zip(&spec.disks).try_for_each(|(number, disk)| check_disk(number, disk))?;
    spec.shares.iter().try_for_each(check_share)
}

/// Checks the number of CPUs against what a backend can give.
pub(super) fn cpus(wanted: u32, most: u32, backend: &str) -> Result<()> {
    if wanted <= most {
        return Ok(());
    }
    Err(Error::new(
        Code::VmSpec,
        format!("{wanted} CPUs are more than the {most} that {backend} can give a machine here"),
    )
    .with_hint(format!("use `cpus` from 1 to {most}"))
    .with_detail("key", "cpus")
    .with_detail("max_cpus", most))
}

fn memory(wanted: Bytes, host: Option<Bytes>) -> Result<()> {
    let error = |message: String, hint: String| {
        Err(Error::new(Code::VmSpec, message).with_hint(hint).with_detail("key", "memory"))
    };
    if wanted < Bytes::kib(64) {
        return error(
            format!("{wanted} of memory is too little for a guest"),
            format!(
                "give it at least {LEAST_MEMORY}; a number counts bytes, so write memory = \"512MiB\""
            ),
        );
    }
    if wanted < LEAST_MEMORY {
        return error(
            format!("{wanted} of memory is too little for a guest"),
            format!("give it at least {LEAST_MEMORY}: kernel, page tables and devices need that"),
        );
    }
    if !wanted.get().is_multiple_of(Bytes::PAGE.get()) {
        let below = wanted.get() / Bytes::PAGE.get() * Bytes::PAGE.get();
        return error(
            format!("memory of {} bytes is not a whole number of pages", wanted.get()),
            match below.checked_add(Bytes::PAGE.get()) {
                Some(above) => format!("the nearest sizes are {below} and {above} bytes"),
                None => format!("the nearest size is {below} bytes"),
            },
        );
    }
    match host {
        Some(host) if wanted > host => error(
            format!("{wanted} of memory is more than the host has ({})", rounded(host)),
            format!("use less than {}", rounded(host)),
        ),
        _ => Ok(()),
    }
}

/// A size that nobody chose, in the largest whole unit.
fn rounded(size: Bytes) -> Bytes {
    if size >= Bytes::gib(8) { Bytes::gib(size.get() >> 30) } else { Bytes::mib(size.get() >> 20) }
}

/// All of the host's memory, where it tells.
fn host_memory() -> Option<Bytes> {
    memory_figure("MemTotal:")
}

/// The memory of the host that nothing uses, or could give up, where it tells.
pub(super) fn available_memory() -> Option<Bytes> {
    memory_figure("MemAvailable:")
}

fn memory_figure(name: &str) -> Option<Bytes> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
    kib.checked_mul(1024).map(Bytes)
}

fn check_disk(number: usize, disk: &Disk) -> Result<()> {
    let path = disk.path.display();
    let what = match number {
        0 => format!("the image of the root disk, {path}"),
        _ => format!("the image of disk {number}, {path}"),
    };
    let wrong = |problem: String, hint: String| {
        let error = Error::new(Code::VmSpec, format!("{what}, {problem}"));
        Err(error.with_hint(hint).with_detail("path", path.to_string()))
    };
    let file =
        std::fs::File::open(&disk.path).map_err(|error| file_error(&what, &disk.path, error))?;
    let metadata = file.metadata().map_err(|error| file_error(&what, &disk.path, error))?;
    if metadata.is_dir() {
        let hint = "a disk is a raw image file; a directory can be one of the `shares`";
        return wrong("is a directory".to_owned(), hint.to_owned());
    }
    // Devices tell their size when they are opened for the guest.
    if !metadata.is_file() {
        return Ok(());
    }
    if metadata.len() == 0 {
        return wrong(
            "is empty".to_owned(),
            format!("make it as large as the disk: truncate -s 1G {path}"),
        );
    }
    let head = Head::read(&file).map_err(|error| file_error(&what, &disk.path, error))?;
    let convert = || format!("qemu-img convert -O raw {path} {path}.raw");
    match head.format() {
        ImageFormat::Raw => {}
        ImageFormat::Qcow2 if disk.mode == DiskMode::Direct && !disk.readonly => {
            let problem = "is in the format qcow2, which is read beneath an overlay only";
            return wrong(problem.to_owned(), format!("mode = \"overlay\", or: {}", convert()));
        }
        ImageFormat::Qcow2 => {
            return match head.qcow2_refusal() {
                Some(reason) => wrong(format!("is in the format qcow2 and {reason}"), convert()),
                None => Ok(()),
            };
        }
        ImageFormat::Other(name) => {
            let problem = format!("is in the format {name}; disks are raw or qcow2 images");
            return wrong(problem, convert());
        }
    }
    if !metadata.len().is_multiple_of(SECTOR) {
        let bytes = metadata.len();
        return wrong(
            format!("has {bytes} bytes, which is no whole number of sectors of 512 bytes"),
            format!("if it is whole otherwise: truncate -s %512 {path}"),
        );
    }
    Ok(())
}

fn check_share(share: &Share) -> Result<()> {
    let what = format!("the shared directory {}", share.path.display());
    let metadata =
        std::fs::metadata(&share.path).map_err(|error| file_error(&what, &share.path, error))?;
    if metadata.is_dir() {
        return Ok(());
    }
    Err(Error::new(Code::VmSpec, format!("{what} is not a directory"))
        .with_detail("path", share.path.display().to_string()))
}

fn file_error(what: &str, path: &Path, error: std::io::Error) -> Error {
    let (code, problem, hint) = match error.kind() {
        std::io::ErrorKind::NotFound => (
            Code::FileNotFound,
            "does not exist",
            "check the path; a relative one starts in the current directory",
        ),
        std::io::ErrorKind::PermissionDenied => {
            (Code::FilePermission, "may not be read", "allow this user to read it (chmod, chown)")
        }
        _ => (Code::FileIo, "cannot be read", "see the cause; the file system may be damaged"),
    };
    Error::new(code, format!("{what}, {problem}"))
        .with_hint(hint)
        .with_detail("path", path.display().to_string())
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(result: Result<()>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.code(), Code::VmSpec);
        format!("{}; {}", error.message(), error.hint().unwrap_or_default())
    }

    #[test]
    fn memory_must_be_whole_pages_between_the_least_and_the_hosts() {
        let host = Some(Bytes::gib(8));
        assert!(memory(Bytes::mib(256), host).is_ok());
        assert!(memory(Bytes::mib(256), None).is_ok());
        assert!(message(memory(Bytes(0), host)).contains("at least 16MiB"));
        assert!(message(memory(Bytes(12), host)).contains("12B"));
        let odd = message(memory(Bytes(Bytes::mib(64).get() + 100), host));
        assert!(odd.contains("67108864 and 67112960"), "{odd}");
        let large = message(memory(Bytes::gib(4096), host));
        assert!(large.contains("4096GiB") && large.contains("8GiB"), "{large}");
        assert!(message(memory(Bytes(u64::MAX), None)).contains("nearest size is"));
    }

    #[test]
    fn cpus_must_be_at_least_one_and_at_most_what_there_are() {
        assert!(
            message(spec(&MachineSpec { cpus: 0, ..MachineSpec::default() })).contains("1 CPU")
        );
        assert!(message(cpus(300, 64, "kvm")).contains("from 1 to 64"));
        assert!(cpus(64, 64, "kvm").is_ok());
    }

    #[test]
    fn disks_must_be_files_that_exist() {
        let disk = |path: &str| MachineSpec {
            disks: vec![Disk {
                path: path.into(),
                readonly: false,
                mode: crate::spec::DiskMode::Overlay,
            }],
            ..MachineSpec::default()
        };
        let missing = spec(&disk("/nonexistent/disk.img")).unwrap_err();
        assert_eq!(missing.code(), Code::FileNotFound);
        assert!(missing.message().contains("disk 1"), "{missing}");
        assert_eq!(spec(&disk("/")).unwrap_err().code(), Code::VmSpec);
        let root = MachineSpec { root: true, ..disk("/nonexistent/disk.img") };
        assert!(spec(&root).unwrap_err().message().contains("the root disk"));
    }

    #[test]
    fn disks_must_be_raw_images_of_whole_sectors() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let said = |bytes: &[u8]| {
            std::fs::write(file.path(), bytes).unwrap();
            let disk = Disk {
                path: file.path().to_owned(),
                readonly: false,
                mode: crate::spec::DiskMode::Overlay,
            };
            spec(&MachineSpec { disks: vec![disk], ..MachineSpec::default() })
        };
        assert!(message(said(b"")).contains("is empty"));
        assert!(message(said(&[0; 513])).contains("513 bytes"));
        for (bytes, word) in [(&b"QFI\xfb\0\0\0\x03"[..], "cut off"), (b"KDMV", "format vmdk")] {
            let said = message(said(bytes));
            assert!(said.contains(word) && said.contains("qemu-img convert -O raw"), "{said}");
        }
        assert!(said(&[0; 512]).is_ok());
    }

    #[test]
    fn the_host_tells_its_memory() {
        if cfg!(target_os = "linux") {
            assert!(host_memory().unwrap() > Bytes::mib(64));
        }
    }
}
