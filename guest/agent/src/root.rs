//! From the initramfs to a root file system on a disk: mounts it, leaves the agent where its init
//! finds it, and becomes that init.
//!
//! Nothing is written to the disk: the agent and its unit are files of the `/run` that the new
//! root inherits.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::{mounts, sys};

/// Where the disk is mounted before it becomes the root.
const NEW_ROOT: &str = "/mnt";

/// File systems that move along.
const KEPT: [&str; 4] = ["/dev", "/proc", "/sys", "/run"];

/// What an init may be called, in the order in which the kernel tries them.
const INITS: [&str; 4] = ["/sbin/init", "/etc/init", "/bin/init", "/bin/sh"];

/// How long a disk may take to appear: its driver is loaded, and may still be asking it for its
/// partitions.
const PATIENCE: Duration = Duration::from_secs(5);

/// The agent's directory in the new root; programs that the agent starts have it on their `PATH`.
const DIRECTORY: &str = "/run/vmoon/bin";

/// The agent as a unit of systemd's. It comes early and stays to the end, so that it answers while
/// the system starts and stops.
const UNIT: &str = "\
[Unit]
Description=Agent of vmoon
DefaultDependencies=no
IgnoreOnIsolate=yes
StartLimitIntervalSec=0

[Service]
ExecStart=/run/vmoon/bin/vmoon-agent serve
Environment=HOME=/root LOGNAME=root USER=root SHELL=/bin/sh TERM=linux
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/vmoon/bin
Restart=always
RestartSec=1
OOMScoreAdjust=-999
TasksMax=infinity
LimitNOFILE=524288
";

/// A disk that is to become the root, as the kernel's command line names it (Linux
/// Documentation/admin-guide/kernel-parameters.txt: `root`, `ro`, `rw`).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Root {
    /// Such as `/dev/vda`.
    pub(crate) device: PathBuf,
    /// Whether nothing may be written to it.
    pub(crate) readonly: bool,
}

/// What the new root starts.
#[derive(Debug)]
pub(crate) struct Init {
    path: &'static str,
    /// Whether it is systemd, which starts the agent by its unit.
    pub(crate) starts_agent: bool,
}

impl Root {
    /// Makes the disk the root of this process and of all that it starts, with the agent in place.
    pub(crate) fn enter(&self, agent: bool) -> io::Result<Init> {
        self.mount()?;
        let new_root = Path::new(NEW_ROOT);
        let within = |path: &str| new_root.join(path.trim_start_matches('/'));
        let found = |path: &&str| fs::symlink_metadata(within(path)).is_ok();
        let Some(path) = INITS.into_iter().find(found) else {
            return Err(io::Error::other(format!("it has none of {}", INITS.join(", "))));
        };
        let systemd = ["/lib/systemd/systemd", "/usr/lib/systemd/systemd"].iter().any(found);
        if agent {
            place_agent(systemd)?;
        }
        for kept in KEPT {
            let target = within(kept);
            let moved = fs::create_dir_all(&target).and_then(|()| move_mount(kept, &target));
            moved.map_err(|error| about(&format!("cannot move {kept}"), &error))?;
        }
        switch_to(new_root)?;
        Ok(Init { path, starts_agent: systemd })
    }

    fn mount(&self) -> io::Result<()> {
        let start = Instant::now();
        while !self.device.exists() {
            if start.elapsed() > PATIENCE {
                return Err(io::Error::other("there is no such device"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        let flags = if self.readonly { libc::MS_RDONLY } else { 0 };
        let mut last = io::Error::other("it holds no file system that the kernel knows");
        for kind in file_systems() {
            // A journal that was not closed is left alone on a disk that cannot be written.
            for options in if self.readonly { [c"", c"noload"].as_slice() } else { &[c""] } {
                match mounts::mount_device(&self.device, &kind, Path::new(NEW_ROOT), options, flags)
                {
                    Ok(()) => return Ok(()),
                    // Not of this kind.
                    Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                    Err(error) => last = error,
                }
            }
        }
        Err(about("it cannot be mounted (one of its partitions: root=/dev/vda1)", &last))
    }
}

impl Init {
    /// Becomes it; returns only if that fails.
    pub(crate) fn exec(&self) -> io::Error {
        Command::new(self.path).env_clear().env("HOME", "/").env("TERM", "linux").exec()
    }
}

/// The kinds of file systems on disks that the kernel knows: what most disks have comes first, as
/// the others complain.
fn file_systems() -> Vec<CString> {
    let text = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let kinds = text.lines().filter(|line| !line.starts_with("nodev"));
    let mut kinds: Vec<CString> = kinds.filter_map(|line| CString::new(line.trim()).ok()).collect();
    kinds.sort_by_key(|kind| kind.as_bytes() != b"ext4");
    kinds
}

/// Puts the agent below `/run`, and there the unit by which systemd starts it.
fn place_agent(systemd: bool) -> io::Result<()> {
    let directory = Path::new(DIRECTORY);
    fs::create_dir_all(directory)?;
    let program = directory.join("vmoon-agent");
    fs::copy("/init", &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    if systemd {
        let units = Path::new("/run/systemd/system");
        let wants = units.join("sysinit.target.wants");
        fs::create_dir_all(&wants)?;
        fs::write(units.join("vmoon-agent.service"), UNIT)?;
        symlink("../vmoon-agent.service", wants.join("vmoon-agent.service"))?;
    }
    Ok(())
}

/// Makes `new_root` the root, and frees what the old one, which is memory, held.
fn switch_to(new_root: &Path) -> io::Result<()> {
    empty(Path::new("/"), fs::metadata("/")?.dev());
    std::env::set_current_dir(new_root)?;
    move_mount(".", Path::new("/"))?;
    std::os::unix::fs::chroot(".")?;
    std::env::set_current_dir("/")
}

/// Removes all files of this file system in and below a directory; what cannot be removed stays.
fn empty(directory: &Path, device: u64) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.dev() != device {
            continue;
        }
        let _ = if metadata.is_dir() {
            empty(&path, device);
            fs::remove_dir(&path)
        } else {
            fs::remove_file(&path)
        };
    }
}

fn move_mount(source: &str, target: &Path) -> io::Result<()> {
    let source = CString::new(source)?;
    let target = CString::new(target.as_os_str().as_bytes())?;
    // SAFETY: both are C strings that outlive the call; a move takes neither type nor data.
    sys::check(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            std::ptr::null(),
            libc::MS_MOVE,
            std::ptr::null(),
        )
    })?;
    Ok(())
}

fn about(what: &str, error: &io::Error) -> io::Error {
    io::Error::other(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_its_file_systems() {
        let found = file_systems();
        assert!(!found.is_empty());
        assert!(!found.iter().any(|kind| kind.as_bytes() == b"proc"), "{found:?}");
    }

    #[test]
    fn an_emptied_directory_keeps_what_is_mounted_in_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("a/file"), "x").unwrap();
        let device = fs::metadata(folder.path()).unwrap().dev();
        empty(folder.path(), device + 1);
        assert!(folder.path().join("a/file").exists(), "another file system");
        empty(folder.path(), device);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
