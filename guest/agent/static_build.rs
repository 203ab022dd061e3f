// Builds the agent as a static program. A build script or a test takes this file in as a module:
// `#[path = "…/guest/agent/static_build.rs"] mod static_build;`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The only target that the agent runs on.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Linked with everything, at a fixed address: nothing to load and nothing to relocate in a guest
/// that has no libraries.
const FLAGS: &[&str] = &["-Ctarget-feature=+crt-static", "-Crelocation-model=static"];

/// Variables by which an outer cargo speaks to its children, and that are not for this build:
/// clippy's wrapper checks instead of compiling, and the outer flags would replace [`FLAGS`].
const OUTER: &[&str] = &[
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTFLAGS",
];

/// What the program is made from, relative to the workspace's root.
pub(crate) const SOURCES: &[&str] =
    &["Cargo.lock", "Cargo.toml", "guest/agent/Cargo.toml", "guest/agent/src", "guest/protocol"];

/// Builds the agent of the workspace at `root` and returns the program's path.
///
/// `target_directory` must not be the outer cargo's own, which is locked while it builds.
/// Everything that this needs is in `Cargo.lock` and used by the rest of the workspace too, so
/// that nothing is downloaded.
///
/// # Errors
/// One line for people.
pub(crate) fn build(root: &Path, target_directory: &Path) -> Result<PathBuf, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(root)
        .args(["build", "--quiet", "--locked", "--package", "vmoon-agent", "--bin", "vmoon-agent"])
        .args(["--profile", "agent", "--target", TARGET, "--target-dir"])
        .arg(target_directory)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    for name in OUTER {
        command.env_remove(name);
    }
    let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !status.success() {
        return Err(format!(
            "the agent cannot be built ({status}); it needs the static C library (Debian: \
             libc6-dev, Fedora: glibc-static)"
        ));
    }
    Ok(target_directory.join(TARGET).join("agent").join("vmoon-agent"))
}
