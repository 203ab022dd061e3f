//! Finds a static busybox on the host: the shell and the tools of the assembled guest.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::files;
use super::format::ELF_NATIVE;

/// Where distributions put it: Debian, Fedora, Arch (for its own initramfs).
const PLACES: &[&str] =
    &["/bin/busybox", "/usr/bin/busybox", "/sbin/busybox", "/usr/lib/initcpio/busybox"];

/// A busybox and the names by which it can be called.
#[derive(Debug)]
pub(super) struct Busybox {
    pub(super) bytes: Vec<u8>,
    /// Paths relative to the root, `bin/sh` among them.
    pub(super) applets: Vec<String>,
}

/// The host's busybox, if it has one that runs without libraries.
pub(super) fn find() -> Option<Busybox> {
    let found = PLACES.iter().map(Path::new).find_map(read);
    if found.is_none() {
        tracing::warn!(
            "no static busybox on this host, so the guest has no shell; install busybox-static \
             (Fedora: busybox)"
        );
    }
    found
}

fn read(path: &Path) -> Option<Busybox> {
    if !fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return None;
    }
    let bytes = files::read(path, "busybox").ok()?;
    if !is_static(&bytes) {
        tracing::debug!(path = %path.display(), "not a static program for the guest");
        return None;
    }
    let output = Command::new(path)
        .arg("--list-full")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let applets: Vec<String> =
        text.lines().filter(|line| is_applet(line)).map(Into::into).collect();
    applets.iter().any(|path| path == "bin/sh").then_some(Busybox { bytes, applets })
}

/// Whether a line of the list is a path that may become a link.
fn is_applet(line: &str) -> bool {
    let directories = ["bin/", "sbin/", "usr/bin/", "usr/sbin/"];
    let in_place = directories.iter().any(|directory| {
        line.strip_prefix(directory).is_some_and(|name| !name.is_empty() && !name.contains('/'))
    });
    in_place && line != "bin/busybox"
}

/// Whether these are the bytes of an ELF executable for the guest's processor that asks for no
/// interpreter.
pub(super) fn is_static(bytes: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let half = |at: usize| {
        bytes.get(at..).and_then(|rest| rest.first_chunk()).map(|raw| u16::from_le_bytes(*raw))
    };
    // ELF-64, little-endian (System V ABI, "ELF Header": e_machine, e_phoff, e_phentsize, e_phnum).
    if !bytes.starts_with(b"\x7fELF\x02\x01")
        || bytes.get(18..20) != Some(ELF_NATIVE.to_le_bytes().as_slice())
    {
        return false;
    }
    let table =
        bytes.get(32..40).and_then(|raw| raw.first_chunk().copied()).map(u64::from_le_bytes);
    let (Some(table), Some(size), Some(count)) = (table, half(54), half(56)) else { return false };
    let Ok(table) = usize::try_from(table) else { return false };
    (0..usize::from(count)).all(|index| {
        let kind = table
            .checked_add(index * usize::from(size))
            .and_then(|at| bytes.get(at..)?.first_chunk().copied())
            .map(u32::from_le_bytes);
        kind.is_some_and(|kind| kind != INTERPRETER)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_static_programs_pass() {
        assert!(!is_static(b""));
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(!is_static(b"\x7fELF\x02\x01\x01"));
        // The test itself is a program with an interpreter.
        let this = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(!is_static(&this));
        assert!(!is_static(&this[..70]), "cut in the middle of its table");
    }

    #[test]
    fn only_plain_names_become_links() {
        assert!(is_applet("bin/sh") && is_applet("usr/sbin/chroot"));
        assert!(!is_applet("bin/busybox") && !is_applet("../evil") && !is_applet("bin/a/b"));
        assert!(!is_applet("linuxrc") && !is_applet("bin/"));
    }
}
