//! The host's kernels and their modules.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the kernel of the guests for `vmoon`.
pub const IMAGE_VARIABLE: &str = "VMOON_KERNEL";
/// Names the directory of its modules.
pub const MODULES_VARIABLE: &str = "VMOON_MODULES";

/// What the outer Linux loads.
const OUTER_MODULES: [&str; 1] = ["kvm-amd"];

/// What a guest may need: vmoon chooses among these.
const INNER_MODULES: [&str; 14] = [
    "button",
    "crc32c_generic",
    "ext4",
    "virtio_mmio",
    "virtio_pci",
    "virtio_balloon",
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "virtio-rng",
    "vmw_vsock_virtio_transport",
    "vsock_diag",
    "overlay",
    "pvpanic-mmio",
];

/// A kernel and the directory of its modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The bzImage.
    pub image: PathBuf,
    /// `/lib/modules/VERSION`.
    pub modules: PathBuf,
}

impl Kernel {
    /// The kernel's version, which names the directory of its modules.
    pub fn version(&self) -> &str {
        self.modules.file_name().and_then(|name| name.to_str()).unwrap_or("linux")
    }

    /// The kernel that the variables of vmoon name, if both are set.
    pub fn from_environment() -> Option<Self> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Some(Self {
            image: variable(IMAGE_VARIABLE)?.into(),
            modules: variable(MODULES_VARIABLE)?.into(),
        })
    }

    /// The newest installed kernel that can be a host of machines; those made for clouds first,
    /// as they start faster.
    pub fn installed() -> Option<Self> {
        let mut found: Vec<Self> = std::fs::read_dir("/lib/modules")
            .ok()?
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let version = entry.file_name().into_string().ok()?;
                let image = PathBuf::from(format!("/boot/vmlinuz-{version}"));
                Some(Self { image, modules: entry.path() })
            })
            .filter(|kernel| kernel.image.exists())
            .filter(|kernel| kernel.modules_for(&OUTER_MODULES).is_ok())
            .collect();
        found.sort_by_key(|kernel| {
            let version = kernel.version();
            let numbers: Vec<u32> =
                version.split(|c: char| !c.is_ascii_digit()).flat_map(str::parse).collect();
            (version.contains("cloud"), numbers)
        });
        found.pop()
    }

    /// The modules that make a host of machines, dependencies first.
    pub fn outer_modules(&self) -> io::Result<Vec<PathBuf>> {
        self.modules_for(&OUTER_MODULES)
    }

    /// The modules that a guest may need and this kernel has, dependencies first.
    pub fn inner_modules(&self) -> io::Result<Vec<PathBuf>> {
        let index = self.index()?;
        let mut files = Vec::new();
        for name in INNER_MODULES {
            if let Some(line) = find(&index, name) {
                add(&mut files, line, &self.modules);
            }
        }
        Ok(files)
    }

    /// `modules.dep` and `modules.builtin`, the former for no other modules than `files`.
    pub fn indexes_for(&self, files: &[PathBuf]) -> io::Result<[(&'static str, String); 2]> {
        let lines: String = self
            .index()?
            .lines()
            .filter(|line| {
                let file = line.split(':').next().unwrap_or_default();
                files.contains(&self.modules.join(file))
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        // A directory made by hand may lack it: nothing is known to be built in.
        let builtin = std::fs::read_to_string(self.modules.join("modules.builtin"));
        Ok([("modules.dep", lines), ("modules.builtin", builtin.unwrap_or_default())])
    }

    fn modules_for(&self, names: &[&str]) -> io::Result<Vec<PathBuf>> {
        let index = self.index()?;
        let mut files = Vec::new();
        for name in names {
            let line = find(&index, name).ok_or_else(|| {
                let message = format!("{} has no module {name}", self.modules.display());
                io::Error::new(io::ErrorKind::NotFound, message)
            })?;
            add(&mut files, line, &self.modules);
        }
        Ok(files)
    }

    fn index(&self) -> io::Result<String> {
        let path = self.modules.join("modules.dep");
        std::fs::read_to_string(&path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }
}

/// The line of modules.dep, `file: dependency…`, of a module.
fn find<'a>(index: &'a str, name: &str) -> Option<&'a str> {
    index.lines().find(|line| {
        let file = line.split(':').next().unwrap_or_default();
        let file = file.rsplit('/').next().unwrap_or_default();
        // A module is called by its file's name, in which `-` and `_` are one.
        let module = file.split(".ko").next().unwrap_or_default();
        module.replace('-', "_") == name.replace('-', "_")
    })
}

/// Adds the files of a line of modules.dep, which names the nearest dependencies first.
fn add(files: &mut Vec<PathBuf>, line: &str, directory: &Path) {
    let Some((module, dependencies)) = line.split_once(':') else { return };
    for file in dependencies.split_whitespace().rev().chain([module]) {
        let path = directory.join(file);
        if !files.contains(&path) {
            files.push(path);
        }
    }
}

/// The bytes of a module, decompressed if need be: an initramfs's `insmod` takes plain ones.
pub fn read_module(path: &Path) -> io::Result<Vec<u8>> {
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return std::fs::read(path),
    };
    let output = Command::new(tool).arg("-dc").arg(path).output().map_err(|error| {
        io::Error::new(error.kind(), format!("{tool}, to read {}: {error}", path.display()))
    })?;
    if !output.status.success() {
        let message = format!("{tool} cannot read {}", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "kernel/kvm/kvm.ko: kernel/lib/irqbypass.ko\n\
        kernel/kvm/kvm-amd.ko.xz: kernel/kvm/kvm.ko kernel/lib/irqbypass.ko\n";

    #[test]
    fn dependencies_come_before_the_module_and_once() {
        let mut files = Vec::new();
        for name in ["kvm", "kvm-amd"] {
            add(&mut files, find(INDEX, name).expect("the module is there"), Path::new("/m"));
        }
        let expected = ["irqbypass.ko", "kvm.ko", "kvm-amd.ko.xz"];
        let names: Vec<_> =
            files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, expected);
        assert_eq!(find(INDEX, "kvm-intel"), None);
    }
}
