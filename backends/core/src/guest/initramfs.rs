//! Assembles the initramfs of a Linux guest: the agent as PID 1, a shell, kernel modules.

use std::path::Path;

use super::busybox::Busybox;
use super::cpio::Archive;
use super::files;
use super::modules::Module;
use crate::error::Result;

/// The directories, with their permissions. Each comes after the one that it is in.
const DIRECTORIES: &[(&str, u32)] = &[
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("etc/vmoon", 0o755),
    ("home", 0o755),
    ("lib", 0o755),
    ("lib/modules", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("var", 0o755),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
];

/// The files that make users, groups, names and login shells work.
const FILES: &[(&str, &str)] = &[
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\n\
         daemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
         nobody:x:65534:65534:nobody:/:/bin/false\n",
    ),
    ("etc/group", "root:x:0:\ndaemon:x:1:\ntty:x:5:\ndisk:x:6:\nnogroup:x:65534:\n"),
    ("etc/hostname", "vmoon\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/shells", "/bin/sh\n"),
    ("etc/profile", "export PS1='\\w # '\n"),
    ("etc/os-release", "ID=vmoon\nNAME=vmoon\nPRETTY_NAME=\"vmoon's assembled guest\"\n"),
];

/// Modules and the version directory that they go to.
#[derive(Debug)]
pub(super) struct Modules<'a> {
    /// The host's directory, such as `/lib/modules/6.1.0`.
    pub(super) directory: &'a Path,
    /// The kernel's version: the guest's directory bears it.
    pub(super) version: &'a str,
    /// In the order in which to load them.
    pub(super) list: &'a [Module],
}

/// The initramfs.
pub(super) fn assemble(
    agent: &[u8],
    busybox: Option<&Busybox>,
    modules: Option<&Modules<'_>>,
) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for (path, permissions) in DIRECTORIES {
        archive.directory(path, *permissions);
    }
    // What the kernel opens for PID 1 before anything is mounted, and what programs need.
    archive.character_device("dev/console", 0o600, (5, 1));
    archive.character_device("dev/null", 0o666, (1, 3));
    for (path, text) in FILES {
        archive.file(path, 0o644, text.as_bytes());
    }
    archive.file("init", 0o755, agent);
    archive.link("bin/vmoon-agent", "/init");
    if let Some(busybox) = busybox {
        archive.file("bin/busybox", 0o755, &busybox.bytes);
        for applet in &busybox.applets {
            archive.link(applet, "/bin/busybox");
        }
    }
    if let Some(modules) = modules {
        add_modules(&mut archive, modules)?;
    }
    Ok(archive.finish())
}

/// Adds modules where `modprobe` looks for them, and the list that the agent loads.
fn add_modules(archive: &mut Archive, modules: &Modules<'_>) -> Result<()> {
    let root = format!("lib/modules/{}", modules.version);
    archive.directory(&root, 0o755);
    let mut made = std::collections::HashSet::new();
    let mut list = String::new();
    for module in modules.list {
        let parents = module.path.match_indices('/').map(|(end, _)| &module.path[..end]);
        for parent in parents {
            if made.insert(parent) {
                archive.directory(&format!("{root}/{parent}"), 0o755);
            }
        }
        let bytes = files::read(&module.source, "kernel module")?;
        let path = format!("{root}/{}", module.path);
        archive.file(&path, 0o644, &bytes);
        list.push('/');
        list.push_str(&path);
        list.push('\n');
    }
    archive.file("etc/vmoon/modules", 0o644, list.as_bytes());
    tracing::debug!(from = %modules.directory.display(), count = modules.list.len(), "modules");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::cpio::tests::read_back;
    use super::*;
    use crate::error::Code;

    #[test]
    fn it_holds_the_agent_the_shell_and_the_modules_in_order() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("kernel/a")).unwrap();
        let list: Vec<Module> = ["kernel/a/ring.ko", "kernel/a/mmio.ko.xz"]
            .map(|path| Module { source: directory.path().join(path), path: path.to_owned() })
            .into();
        for module in &list {
            std::fs::write(&module.source, &module.path).unwrap();
        }
        let busybox = Busybox { bytes: b"box".to_vec(), applets: vec!["bin/sh".to_owned()] };
        let modules = Modules { directory: directory.path(), version: "6.1", list: &list };
        let entries = read_back(&assemble(b"agent", Some(&busybox), Some(&modules)).unwrap());
        let find = |path: &str| {
            let entry = entries.iter().find(|entry| entry.0 == path);
            entry.unwrap_or_else(|| panic!("no {path}")).clone()
        };
        assert_eq!(find("init"), ("init".to_owned(), 0o100_755, b"agent".to_vec()));
        assert_eq!(find("bin/sh").2, b"/bin/busybox");
        assert_eq!(find("tmp").1, 0o041_777);
        assert_eq!(
            find("etc/vmoon/modules").2,
            b"/lib/modules/6.1/kernel/a/ring.ko\n/lib/modules/6.1/kernel/a/mmio.ko.xz\n"
        );
        assert_eq!(find("lib/modules/6.1/kernel/a/ring.ko").2, b"kernel/a/ring.ko");
        for (at, (path, ..)) in entries.iter().enumerate() {
            if let Some((parent, _)) = path.rsplit_once('/') {
                let made = entries[..at].iter().any(|(other, ..)| other == parent);
                assert!(made, "{path} comes before its directory");
            }
        }
    }

    #[test]
    fn a_module_that_is_gone_is_named() {
        let list = [Module { source: "/nowhere/a.ko".into(), path: "a.ko".to_owned() }];
        let modules = Modules { directory: Path::new("/nowhere"), version: "1", list: &list };
        let error = assemble(b"agent", None, Some(&modules)).unwrap_err();
        assert_eq!(error.code(), Code::FileNotFound);
        assert!(error.message().contains("/nowhere/a.ko"), "{error}");
    }
}
