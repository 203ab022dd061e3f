//! Finds a kernel on the host, and the modules that belong to it.
//!
//! `VMOON_KERNEL` names a kernel, `VMOON_MODULES` a directory of modules (one with a
//! `modules.dep`); both override what would be found.

use std::cmp::Ordering;
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{KernelFormat, files};
use crate::error::{Code, Error, Result};
use crate::spec::Image;

/// The environment variable that names a kernel.
const KERNEL_VARIABLE: &str = "VMOON_KERNEL";
/// The environment variable that names the directory of its modules.
const MODULES_VARIABLE: &str = "VMOON_MODULES";

/// Where Apple's `container` keeps the kernel that it fetched, below the home directory.
const APPLE_CONTAINER: &str =
    "Library/Application Support/com.apple.container/kernels/default.kernel-arm64";

/// How to get a kernel.
const HOW_TO_GET: &str = if cfg!(target_os = "macos") {
    "install one: brew install container && container system start --enable-kernel-install"
} else {
    "install one: Debian linux-image-cloud-amd64, Ubuntu linux-image-virtual, Fedora kernel-core, \
     Arch linux"
};

/// Where kernels and modules are looked for.
#[derive(Clone, Debug)]
pub(super) struct Places {
    boot: PathBuf,
    modules: Vec<PathBuf>,
    /// Kernels that have all that they need built in, and are taken where there is none with
    /// modules.
    whole: Vec<PathBuf>,
    kernel_override: Option<OsString>,
    modules_override: Option<OsString>,
}

impl Places {
    /// This host's.
    pub(super) fn host() -> Self {
        Self {
            boot: "/boot".into(),
            modules: vec!["/lib/modules".into(), "/usr/lib/modules".into()],
            whole: env::home_dir()
                .filter(|_| cfg!(target_os = "macos"))
                .map_or_else(Vec::new, |home| vec![home.join(APPLE_CONTAINER)]),
            kernel_override: env::var_os(KERNEL_VARIABLE).filter(|value| !value.is_empty()),
            modules_override: env::var_os(MODULES_VARIABLE).filter(|value| !value.is_empty()),
        }
    }
}

/// A kernel and its modules.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) image: Image,
    /// The directory with `modules.dep`; none for a kernel that needs none.
    pub(super) modules: Option<PathBuf>,
}

/// The path of the kernel: `given`, or the newest that can be read.
pub(super) fn find(given: Option<&Path>, places: &Places) -> Result<PathBuf> {
    match given.or(places.kernel_override.as_deref().map(Path::new)) {
        Some(path) => Ok(path.to_owned()),
        None => Ok(newest(places)?.path),
    }
}

/// Reads the kernel at `path` and finds its modules.
pub(super) fn open(path: &Path, places: &Places) -> Result<Kernel> {
    let image = files::kernel(path)?;
    let modules = match &places.modules_override {
        Some(directory) => Some(check_modules(Path::new(directory))?),
        None => modules_of(&image, places),
    };
    Ok(Kernel { image, modules })
}

fn check_modules(directory: &Path) -> Result<PathBuf> {
    let list = directory.join("modules.dep");
    File::open(&list).map_err(|error| {
        files::failure(&list, "list of modules", error).with_hint(format!(
            "{MODULES_VARIABLE} must name a directory such as /lib/modules/VERSION, after depmod"
        ))
    })?;
    Ok(directory.to_owned())
}

/// The modules of a kernel, by the version that its file says it has.
fn modules_of(kernel: &Image, places: &Places) -> Option<PathBuf> {
    let version = version(kernel);
    let found = version.as_deref().and_then(|version| {
        places
            .modules
            .iter()
            .map(|root| root.join(version))
            .find(|directory| directory.join("modules.dep").exists())
    });
    if found.is_none() {
        tracing::warn!(
            kernel = %kernel.origin().display(),
            version,
            "no modules found; the kernel must have virtio_mmio and vsock built in, or \
             {MODULES_VARIABLE} name their directory"
        );
    }
    found
}

/// The version that a kernel's file says it has: a bzImage in the string that its setup header
/// points to (Linux Documentation/arch/x86/boot.rst, field `kernel_version`), the others in their
/// banner.
pub(super) fn version(image: &Image) -> Option<String> {
    let bytes = image.bytes();
    let start = if KernelFormat::recognise(bytes) == Some(KernelFormat::BzImage) {
        let offset = u16::from_le_bytes(*bytes.get(0x20e..)?.first_chunk()?);
        (offset != 0).then_some(usize::from(offset) + 0x200)?
    } else {
        let banner = b"Linux version ";
        bytes.windows(banner.len()).position(|window| window == banner)? + banner.len()
    };
    let text = bytes.get(start..)?;
    let end = text.iter().take(128).position(|byte| matches!(byte, b' ' | 0))?;
    let version = std::str::from_utf8(&text[..end]).ok()?;
    // The version becomes a part of a path.
    (!version.is_empty() && !version.contains('/') && !version.starts_with('.'))
        .then(|| version.to_owned())
}

struct Candidate {
    version: String,
    path: PathBuf,
}

/// The newest kernel that has modules and can be read.
fn newest(places: &Places) -> Result<Candidate> {
    let mut candidates = candidates(places);
    candidates.sort_by(|a, b| compare(&b.version, &a.version));
    let whole = places.whole.iter().filter(|path| path.exists());
    candidates.extend(whole.map(|path| Candidate { version: String::new(), path: path.clone() }));
    let mut refused = None;
    for candidate in candidates {
        match File::open(&candidate.path) {
            Ok(_) => return Ok(candidate),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                refused.get_or_insert_with(|| files::failure(&candidate.path, "kernel", error));
            }
            Err(error) => tracing::debug!(kernel = %candidate.path.display(), %error, "skipped"),
        }
    }
    Err(refused.unwrap_or_else(|| {
        Error::new(
            Code::FileNotFound,
            format!("no Linux kernel with modules found in {}", places.boot.display()),
        )
        .with_hint(format!(
            "{HOW_TO_GET}; or give kernel = \"/path/to/kernel\" or set {KERNEL_VARIABLE} and \
             {MODULES_VARIABLE}"
        ))
    }))
}

/// Kernels in `/boot` (Debian, Fedora) and beside their modules (Fedora, Arch).
fn candidates(places: &Places) -> Vec<Candidate> {
    let in_boot = entries(&places.boot).into_iter().filter_map(|name| {
        let version = name.strip_prefix("vmlinuz-")?.to_owned();
        let has_modules =
            places.modules.iter().any(|root| root.join(&version).join("modules.dep").exists());
        has_modules.then(|| Candidate { version, path: places.boot.join(&name) })
    });
    let with_modules = places.modules.iter().flat_map(|root| {
        entries(root).into_iter().filter_map(|version| {
            let path = root.join(&version).join("vmlinuz");
            (path.exists() && root.join(&version).join("modules.dep").exists())
                .then_some(Candidate { version, path })
        })
    });
    in_boot.chain(with_modules).collect()
}

fn entries(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Orders versions as people do: numbers as numbers, 6.1.0-9 before 6.1.0-10.
fn compare(a: &str, b: &str) -> Ordering {
    parts(a).cmp(parts(b)).then_with(|| a.cmp(b))
}

/// The runs of digits, as numbers, and what is between them, as text.
fn parts(version: &str) -> impl Iterator<Item = (bool, u64, &str)> {
    version
        .as_bytes()
        .chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit())
        .scan(0, |at, run| {
            let text = version.get(*at..*at + run.len()).unwrap_or_default();
            *at += run.len();
            Some(text)
        })
        .map(|text| match text.parse() {
            Ok(number) => (true, number, ""),
            Err(_) => (false, 0, text),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(root: &Path) -> Places {
        Places {
            boot: root.join("boot"),
            modules: vec![root.join("modules")],
            whole: vec![root.join("whole")],
            kernel_override: None,
            modules_override: None,
        }
    }

    /// A file that passes for a bzImage of this version.
    fn bzimage(version: &str) -> Vec<u8> {
        let mut bytes = vec![0; 0x400];
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        let text = format!("{version} (build@host) #1\0");
        bytes[0x300..0x300 + text.len()].copy_from_slice(text.as_bytes());
        bytes
    }

    fn install(root: &Path, version: &str, with_modules: bool) {
        fs::create_dir_all(root.join("boot")).unwrap();
        fs::write(root.join("boot").join(format!("vmlinuz-{version}")), bzimage(version)).unwrap();
        if with_modules {
            fs::create_dir_all(root.join("modules").join(version)).unwrap();
            fs::write(root.join("modules").join(version).join("modules.dep"), "").unwrap();
        }
    }

    fn find_and_open(given: Option<&Path>, places: &Places) -> Result<Kernel> {
        open(&find(given, places)?, places)
    }

    #[test]
    fn the_newest_kernel_with_modules_is_found() {
        let root = tempfile::tempdir().unwrap();
        install(root.path(), "6.1.0-9-amd64", true);
        install(root.path(), "6.1.0-10-amd64", true);
        install(root.path(), "6.12.0-1-amd64", false);
        let kernel = find_and_open(None, &places(root.path())).unwrap();
        assert_eq!(kernel.image.origin(), root.path().join("boot/vmlinuz-6.1.0-10-amd64"));
        assert_eq!(kernel.modules, Some(root.path().join("modules/6.1.0-10-amd64")));
    }

    #[test]
    fn a_kernel_that_needs_no_modules_is_taken_where_there_is_no_other() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("whole"), bzimage("6.12.28")).unwrap();
        let kernel = find_and_open(None, &places(root.path())).unwrap();
        assert_eq!(kernel.image.origin(), root.path().join("whole"));
        assert_eq!(kernel.modules, None);
        install(root.path(), "6.1.0-9-amd64", true);
        let kernel = find_and_open(None, &places(root.path())).unwrap();
        assert!(kernel.modules.is_some());
    }

    #[test]
    fn a_kernel_beside_its_modules_is_found() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("modules/6.9.1-arch1-1");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("modules.dep"), "").unwrap();
        fs::write(directory.join("vmlinuz"), bzimage("6.9.1-arch1-1")).unwrap();
        let kernel = find_and_open(None, &places(root.path())).unwrap();
        assert_eq!(kernel.modules, Some(directory));
    }

    #[test]
    fn a_given_kernel_leads_to_its_modules_by_its_header() {
        let root = tempfile::tempdir().unwrap();
        install(root.path(), "6.1.0-9-amd64", true);
        let elsewhere = root.path().join("bzImage");
        fs::write(&elsewhere, bzimage("6.1.0-9-amd64")).unwrap();
        let kernel = find_and_open(Some(&elsewhere), &places(root.path())).unwrap();
        assert_eq!(kernel.modules, Some(root.path().join("modules/6.1.0-9-amd64")));
        fs::write(&elsewhere, bzimage("5.0.0")).unwrap();
        assert_eq!(find_and_open(Some(&elsewhere), &places(root.path())).unwrap().modules, None);
    }

    #[test]
    fn no_kernel_is_an_error_that_says_what_to_install() {
        let root = tempfile::tempdir().unwrap();
        let error = find_and_open(None, &places(root.path())).unwrap_err();
        assert_eq!(error.code(), Code::FileNotFound);
        assert!(error.hint().unwrap().contains("linux-image-cloud-amd64"));
    }

    #[test]
    fn overrides_are_checked() {
        let root = tempfile::tempdir().unwrap();
        install(root.path(), "6.1.0-9-amd64", true);
        let mut places = places(root.path());
        places.kernel_override = Some(root.path().join("none").into());
        let error = find_and_open(None, &places).unwrap_err();
        assert_eq!(error.code(), Code::FileNotFound);
        assert!(error.message().contains("none"), "{error}");
        places.kernel_override = None;
        places.modules_override = Some(root.path().join("nowhere").into());
        let error = find_and_open(None, &places).unwrap_err();
        assert!(error.hint().unwrap().contains(MODULES_VARIABLE), "{error}");
    }

    #[test]
    fn a_version_cannot_lead_out_of_the_modules() {
        for hostile in ["../../etc", "a/b", ""] {
            assert_eq!(version(&Image::read("x", bzimage(hostile))), None, "{hostile}");
        }
        let mut cut = bzimage("6.1");
        cut[0x20e..0x210].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(version(&Image::read("x", cut)), None);
        let elf = b"\x7fELF....Linux version 6.6.1 (gcc)\0".to_vec();
        assert_eq!(version(&Image::read("x", elf)).as_deref(), Some("6.6.1"));
    }

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let mut versions = ["6.10.0", "6.1.0-10-a", "5.9", "6.1.0-9-a", "6.9.0", "6.1.0-9-b"];
        versions.sort_by(|a, b| compare(a, b));
        assert_eq!(versions, ["5.9", "6.1.0-9-a", "6.1.0-9-b", "6.1.0-10-a", "6.9.0", "6.10.0"]);
    }
}
