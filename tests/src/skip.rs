//! Tests that cannot run on this machine.

use std::io::Write;

use crate::process::installed;

/// Reports that `test` cannot run here, and what is missing. The caller returns.
///
/// The line goes to the real standard error, where the test harness does not hide it.
///
/// # Panics
/// In CI (`CI` is set and not `false`): what CI does not run, nobody runs.
pub fn skip(test: &str, missing: &str) {
    let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    assert!(!ci, "{test} cannot run, and CI skips nothing: {missing}");
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {missing}");
}

/// What keeps machines of the `kvm` backend from running here, if anything.
pub fn without_kvm() -> Option<String> {
    match std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => None,
        Err(error) => Some(format!("/dev/kvm cannot be opened: {error}")),
    }
}

/// What keeps machines of the `qemu` backend from running here, if anything.
pub fn without_qemu() -> Option<String> {
    let found = installed("qemu-system-x86_64");
    found.is_none().then(|| "there is no qemu-system-x86_64; install qemu-system-x86".to_owned())
}

/// What keeps stock Linux from running in QEMU here, if anything.
pub fn without_linux() -> Option<String> {
    let kernels = std::fs::read_dir("/boot").into_iter().flatten().flatten();
    let mut names = kernels.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let kernel = names.any(|name| name.starts_with("vmlinuz-"));
    let missing = || "there is no kernel in /boot; install linux-image-cloud-amd64".to_owned();
    without_qemu().or_else(|| (!kernel).then(missing))
}
