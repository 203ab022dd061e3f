//! Tests that cannot run on this machine.

use std::io::Write;

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
