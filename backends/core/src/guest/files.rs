//! Reads the files that make up a guest, with errors that say what to do.

use std::fs;
use std::io;
use std::path::Path;

use super::format;
use crate::error::{Code, Error, Result};
use crate::spec::Image;

/// The largest kernel or initramfs that is read: far above any real one, far below what would
/// drive the host out of memory.
const LARGEST: u64 = 2 << 30;

/// Reads a kernel for this host's processor.
pub(super) fn kernel(path: &Path) -> Result<Image> {
    let bytes = read(path, "kernel")?;
    format::check(path, &bytes, std::env::consts::ARCH)?;
    Ok(Image::read(path, bytes))
}

/// Reads an initramfs as it is: the kernel knows more formats than are worth checking here.
pub(super) fn initrd(path: &Path) -> Result<Image> {
    Ok(Image::read(path, read(path, "initrd")?))
}

/// Reads a whole regular file that must not be empty. `role` names it in messages.
pub(super) fn read(path: &Path, role: &str) -> Result<Vec<u8>> {
    let metadata = fs::metadata(path).map_err(|error| failure(path, role, error))?;
    if !metadata.is_file() {
        return Err(Error::new(
            Code::VmSpec,
            format!("{role} {} is not a regular file", path.display()),
        )
        .with_hint("give the path of a file")
        .with_detail("path", path.display().to_string()));
    }
    if metadata.len() > LARGEST {
        return Err(Error::new(
            Code::VmSpec,
            format!("{role} {} is larger than 2 GiB", path.display()),
        )
        .with_hint("is it a disk image? Those go into disks = { … }")
        .with_detail("path", path.display().to_string()));
    }
    let bytes = fs::read(path).map_err(|error| failure(path, role, error))?;
    if bytes.is_empty() {
        return Err(Error::new(Code::VmSpec, format!("{role} {} is empty", path.display()))
            .with_hint("an interrupted copy or download? Fetch it again")
            .with_detail("path", path.display().to_string()));
    }
    Ok(bytes)
}

/// The error for a file that cannot be read.
pub(super) fn failure(path: &Path, role: &str, error: io::Error) -> Error {
    let shown = path.display();
    let (code, what, hint) = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => (
            Code::FileNotFound,
            "does not exist",
            "check the path; it is taken relative to the current directory".to_owned(),
        ),
        io::ErrorKind::PermissionDenied => {
            (Code::FilePermission, "may not be read", format!("sudo chmod a+r {shown}"))
        }
        _ => (Code::FileIo, "cannot be read", "check the file and the disk it is on".to_owned()),
    };
    Error::new(code, format!("{role} {shown} {what}"))
        .with_hint(hint)
        .with_detail("path", shown.to_string())
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> Error {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        let error = kernel(file.path()).unwrap_err();
        assert_eq!(error.code(), Code::VmSpec);
        assert!(error.message().contains(&file.path().display().to_string()), "{error}");
        assert!(error.hint().is_some());
        error
    }

    #[test]
    fn what_is_not_a_kernel_is_refused() {
        assert!(refused(b"").message().ends_with("is empty"));
        refused(b"MZ");
        refused(&[0; 4096]);
        assert!(refused(b"\x1f\x8b\x08").hint().unwrap().contains("gzip"));
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(kernel(directory.path()).unwrap_err().code(), Code::VmSpec);
        let missing = directory.path().join("none");
        assert_eq!(kernel(&missing).unwrap_err().code(), Code::FileNotFound);
        assert_eq!(initrd(&missing).unwrap_err().code(), Code::FileNotFound);
    }
}
