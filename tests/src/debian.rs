//! A root file system of Debian's, made once and kept with the build.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::installed;
use crate::project;

/// What it takes: a command and the package that brings it.
const TOOLS: [(&str, &str); 2] = [("mmdebstrap", "mmdebstrap"), ("mkfs.ext4", "e2fsprogs")];

/// Little beside systemd and the services of `examples/nixos`, which start when they are asked to.
/// Documents and languages would only cost time.
const MAKE: &str = "
set -eu
mmdebstrap --quiet --variant=minbase \\
  --include=systemd-sysv,udev,dbus,nginx-light,redis-server,memcached,curl \\
  --customize-hook='chroot \"$1\" systemctl --quiet disable nginx redis-server memcached' \\
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \\
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \\
  --customize-hook='rm -rf \"$1\"/var/cache/apt/* \"$1\"/var/lib/apt/lists/*' \\
  \"$1\" \"$2/root\"
mkfs.ext4 -q -F -d \"$2/root\" \"$2/debian.img\" 288M
";

/// Why no image can be made here, or `None`.
pub fn missing() -> Option<String> {
    let found =
        |tool: &str| installed(tool).is_some() || Path::new("/usr/sbin").join(tool).is_file();
    let packages: Vec<&str> =
        TOOLS.iter().filter(|(tool, _)| !found(tool)).map(|(_, package)| *package).collect();
    if !packages.is_empty() {
        let packages = packages.join(" ");
        return Some(format!(
            "missing: {packages}\n  apt-get install --no-install-recommends {packages}"
        ));
    }
    // SAFETY: `geteuid` has no preconditions.
    (unsafe { libc::geteuid() } != 0).then(|| "root, to own the files of a root".to_owned())
}

/// The image: the one that was made before, or a new one.
///
/// # Panics
/// When it cannot be made.
pub fn image() -> PathBuf {
    let image = project::root().join(format!("target/debian-{:016x}.img", recipe()));
    if image.is_file() {
        return image;
    }
    let folder = tempfile::tempdir_in(project::root().join("target")).expect("a temporary folder");
    let status = Command::new("sh")
        .args(["-c", MAKE, "sh", &suite()])
        .arg(folder.path())
        .stdin(Stdio::null())
        .status()
        .expect("sh can be run");
    assert!(status.success(), "no root file system could be made: {status}");
    std::fs::rename(folder.path().join("debian.img"), &image).expect("it can be moved");
    image
}

/// Names the recipe, so that an image made by another is not taken for one of this.
fn recipe() -> u64 {
    let mut hasher = DefaultHasher::new();
    MAKE.hash(&mut hasher);
    hasher.finish()
}

/// The release of this host where that is Debian, so that its mirrors have it.
fn suite() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    value("VERSION_CODENAME=")
        .filter(|_| value("ID=") == Some("debian"))
        .unwrap_or("stable")
        .to_owned()
}
