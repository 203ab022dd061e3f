//! Chooses the kernel modules that a guest needs, in the order in which they must be loaded.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::files;
use crate::error::{Code, Error, Result};

/// Without these there is no machine to speak of: the transport of every device, and vsock.
const REQUIRED: &[&str] = &[TRANSPORT, "vmw_vsock_virtio_transport"];
const TRANSPORT: &str = if cfg!(target_os = "macos") { "virtio_pci" } else { "virtio_mmio" };

/// Loaded where the kernel has them: panics reach the host, then the other devices, then the power
/// button, then the file systems of disks and overlays.
const WANTED: &[&str] = &[
    "pvpanic_mmio",
    // By which the agent learns who listens on vsock.
    "vsock_diag",
    "virtio_pci",
    "virtio_rng",
    "virtio_balloon",
    "virtio_blk",
    "virtio_console",
    "virtiofs",
    "virtio_net",
    "button",
    "evdev",
    "crc32c_generic",
    "ext4",
    "overlay",
];

/// A module to put into the initramfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Module {
    /// The file on the host.
    pub(super) source: PathBuf,
    /// Its path below the directory of modules, as `modules.dep` spells it.
    pub(super) path: String,
}

/// The modules to load, each after what it needs.
pub(super) fn choose(directory: &Path) -> Result<Vec<Module>> {
    let dependencies = read_text(&directory.join("modules.dep"))?;
    // A hand-made directory may lack it; then nothing is known to be built in.
    let builtin = fs::read_to_string(directory.join("modules.builtin")).unwrap_or_default();
    let index = Index::parse(&dependencies, &builtin);
    let mut order = Vec::new();
    for name in REQUIRED {
        if !index.add(name, &mut order) {
            return Err(Error::new(
                Code::VmSpec,
                format!(
                    "the kernel has no {name}: neither built in nor in {}",
                    directory.display()
                ),
            )
            .with_hint(
                "install the package with the rest of its modules (Ubuntu: \
                 linux-modules-extra-VERSION), or use another kernel",
            )
            .with_detail("module", *name)
            .with_detail("path", directory.display().to_string()));
        }
    }
    for name in WANTED {
        if !index.add(name, &mut order) {
            tracing::debug!(module = name, "the kernel does not have it");
        }
    }
    // Old versions of depmod wrote absolute paths.
    let module = |path: &str| Module {
        source: directory.join(path),
        path: path.trim_start_matches('/').to_owned(),
    };
    Ok(order.into_iter().map(module).collect())
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = files::read(path, "list of modules")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What `modules.dep` and `modules.builtin` say.
struct Index<'a> {
    /// By normalised name: the path and the paths that it needs.
    modules: HashMap<String, (&'a str, Vec<&'a str>)>,
    builtin: HashSet<String>,
}

impl<'a> Index<'a> {
    fn parse(dependencies: &'a str, builtin: &str) -> Self {
        let modules = dependencies.lines().filter_map(|line| {
            let (path, needs) = line.split_once(':')?;
            Some((name(path)?, (path, needs.split_ascii_whitespace().collect())))
        });
        Self { modules: modules.collect(), builtin: builtin.lines().filter_map(name).collect() }
    }

    /// Appends a module after what it needs; false when the kernel does not have it.
    fn add(&self, wanted: &str, order: &mut Vec<&'a str>) -> bool {
        if self.builtin.contains(wanted) {
            return true;
        }
        let Some((path, needs)) = self.modules.get(wanted) else { return false };
        self.visit(path, needs, order, &mut HashSet::new());
        true
    }

    /// Depth first. `open` holds what is being visited: a damaged file may name a circle.
    fn visit(
        &self,
        path: &'a str,
        needs: &[&'a str],
        order: &mut Vec<&'a str>,
        open: &mut HashSet<&'a str>,
    ) {
        if order.contains(&path) || !open.insert(path) {
            return;
        }
        for need in needs {
            let entry = name(need).and_then(|name| self.modules.get(&name));
            if let Some((path, needs)) = entry {
                self.visit(path, needs, order, open);
            }
        }
        order.push(path);
    }
}

/// A module's name by its file's: hyphens and underscores are the same to the kernel.
fn name(path: &str) -> Option<String> {
    let file = path.trim().rsplit('/').next()?;
    let stem = file.split_once(".ko")?.0;
    (!stem.is_empty()).then(|| stem.replace('-', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "\
kernel/drivers/virtio/virtio.ko.xz: kernel/drivers/virtio/virtio_ring.ko.xz
kernel/drivers/virtio/virtio_ring.ko.xz:
kernel/drivers/virtio/virtio_mmio.ko.xz: kernel/drivers/virtio/virtio.ko.xz kernel/drivers/virtio/virtio_ring.ko.xz
kernel/net/vmw_vsock/vmw_vsock_virtio_transport.ko.xz: kernel/net/vmw_vsock/common.ko.xz kernel/net/vmw_vsock/vsock.ko.xz
kernel/net/vmw_vsock/common.ko.xz: kernel/net/vmw_vsock/vsock.ko.xz
kernel/net/vmw_vsock/vsock.ko.xz:
kernel/drivers/char/hw_random/virtio-rng.ko.xz: kernel/drivers/virtio/virtio.ko.xz
";

    fn chosen(dependencies: &str, builtin: &str) -> Result<Vec<String>> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("modules.dep"), dependencies).unwrap();
        fs::write(directory.path().join("modules.builtin"), builtin).unwrap();
        let modules = choose(directory.path())?;
        Ok(modules.iter().filter_map(|module| name(&module.path)).collect())
    }

    #[test]
    fn each_module_comes_after_what_it_needs() {
        assert_eq!(
            chosen(DEPENDENCIES, "").unwrap(),
            [
                "virtio_ring",
                "virtio",
                "virtio_mmio",
                "vsock",
                "common",
                "vmw_vsock_virtio_transport",
                "virtio_rng"
            ]
        );
    }

    #[test]
    fn what_is_built_in_is_not_missed() {
        let builtin = "kernel/drivers/virtio/virtio_mmio.ko\n\
            kernel/net/vmw_vsock/vmw_vsock_virtio_transport.ko\n";
        let modules = chosen("kernel/fs/overlayfs/overlay.ko:\n", builtin).unwrap();
        assert_eq!(modules, ["overlay"]);
    }

    #[test]
    fn a_missing_transport_is_an_error_that_names_it() {
        let error = chosen("kernel/fs/overlayfs/overlay.ko:\n", "").unwrap_err();
        assert_eq!(error.code(), Code::VmSpec);
        assert!(error.message().contains("virtio_mmio"), "{error}");
        assert!(error.hint().is_some());
    }

    #[test]
    fn a_circle_ends() {
        let builtin = "virtio_mmio.ko\nvmw_vsock_virtio_transport.ko\n";
        let modules = chosen("a/ext4.ko: a/b.ko\na/b.ko: a/ext4.ko\n", builtin).unwrap();
        assert_eq!(modules, ["b", "ext4"]);
    }
}
