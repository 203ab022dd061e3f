//! Where the project is, and the `vmoon` that the tests run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The root of the project.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is a folder of the project")
}

/// The `vmoon` binary: `VMOON_BIN` if it is set, else the release build, brought up to date.
///
/// The release build is what users run, and the nested machine, which is emulated, would spend
/// minutes in a debug build. Cargo gives an integration test only the binaries of its own
/// package, so this asks Cargo; when nothing changed, that takes a fraction of a second.
///
/// # Panics
/// When the build fails: there is nothing to test.
pub fn vmoon() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("VMOON_BIN") {
        Some(path) => std::fs::canonicalize(&path)
            .unwrap_or_else(|error| panic!("VMOON_BIN is {}: {error}", path.display())),
        None => build(),
    })
}

fn build() -> PathBuf {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "--package", "vmoon", "--bin", "vmoon"])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "cargo build --release --package vmoon failed");
    let built = executable(&String::from_utf8_lossy(&output.stdout)).expect("cargo names it");
    if cfg!(target_os = "macos") {
        sign(&built);
    }
    built
}

/// Gives a program the right to run machines, which macOS wants to see in its signature.
fn sign(program: &Path) {
    let status = Command::new(root().join("backends/vz/signing/sign"))
        .arg(program)
        .status()
        .expect("the script can be run");
    assert!(status.success(), "{} cannot be signed", program.display());
}

/// The path of the executable in cargo's messages, one JSON object a line.
fn executable(messages: &str) -> Option<PathBuf> {
    const KEY: &str = "\"executable\":\"";
    let line = messages.lines().rev().find(|line| line.contains(KEY))?;
    let path = &line[line.find(KEY)? + KEY.len()..];
    Some(PathBuf::from(&path[..path.find('"')?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","executable":"/t/release/vmoon","fresh":true}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executable(messages), Some(PathBuf::from("/t/release/vmoon")));
        assert_eq!(executable(""), None);
    }
}
