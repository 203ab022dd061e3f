// Builds the agent as a static program. A build script or a test takes this file in as a module:
// `#[path = "…/guest/agent/static_build.rs"] mod static_build;`.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Variables by which an outer cargo speaks to its children, and that are not for this build:
/// clippy's wrapper checks instead of compiling, and the outer flags would replace [`Guest`]'s.
const OUTER: &[&str] = &[
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
    "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
    "RUSTC_BOOTSTRAP",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTFLAGS",
];

/// What the program is made from, relative to the workspace's root.
pub(crate) const SOURCES: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "guest/agent/Cargo.toml",
    "guest/agent/src",
    "guest/protocol",
    "guest/tree",
];

/// The target that the agent is built for, and how.
#[derive(Debug)]
pub(crate) struct Guest {
    target: &'static str,
    flags: &'static [&'static str],
    /// What to do when it cannot be built.
    needs: &'static str,
}

impl Guest {
    /// The guest of a host of this operating system and architecture, as `std::env::consts` has
    /// them; none where no backend runs guests.
    ///
    /// A Linux host links with its own static C library, at a fixed address: nothing to load and
    /// nothing to relocate in a guest that has no libraries. On a Mac there is no C library for
    /// Linux, but Rust's musl targets bring their own and its linker.
    pub(crate) fn of_host(os: &str, architecture: &str) -> Option<Self> {
        const NATIVE: &[&str] = &["-Ctarget-feature=+crt-static", "-Crelocation-model=static"];
        const CROSS: &[&str] = &[
            "-Ctarget-feature=+crt-static",
            "-Crelocation-model=static",
            "-Clinker=rust-lld",
            "-Clink-self-contained=yes",
        ];
        const LIBRARY: &str =
            "it needs the static C library (Debian: libc6-dev, Fedora: glibc-static)";
        let (target, flags, needs) = match (os, architecture) {
            ("linux", "x86_64") => ("x86_64-unknown-linux-gnu", NATIVE, LIBRARY),
            ("linux", "aarch64") => ("aarch64-unknown-linux-gnu", NATIVE, LIBRARY),
            ("macos", "x86_64") => (
                "x86_64-unknown-linux-musl",
                CROSS,
                "it needs: rustup target add x86_64-unknown-linux-musl",
            ),
            ("macos", "aarch64") => (
                "aarch64-unknown-linux-musl",
                CROSS,
                "it needs: rustup target add aarch64-unknown-linux-musl",
            ),
            _ => return None,
        };
        Some(Self { target, flags, needs })
    }

    /// Builds the agent of the workspace at `root` and returns the program's path.
    ///
    /// `target_directory` must not be the outer cargo's own, which is locked while it builds.
    /// Everything that this needs is in `Cargo.lock` and used by the rest of the workspace too,
    /// so that nothing is downloaded.
    ///
    /// # Errors
    /// One line for people.
    pub(crate) fn build(&self, root: &Path, target_directory: &Path) -> Result<PathBuf, String> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let mut command = Command::new(cargo);
        command
            .current_dir(root)
            .args(["build", "--quiet", "--locked", "--package", "vmoon-agent"])
            .args(["--bin", "vmoon-agent", "--profile", "agent"])
            .args(["--target", self.target, "--target-dir"])
            .arg(target_directory)
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags.join("\u{1f}"));
        for name in OUTER {
            command.env_remove(name);
        }
        let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
        if !status.success() {
            return Err(format!("the agent cannot be built ({status}); {}", self.needs));
        }
        Ok(target_directory.join(self.target).join("agent").join("vmoon-agent"))
    }
}
