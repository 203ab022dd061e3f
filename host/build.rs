//! Builds the agent, which the binary carries into Linux guests.

use std::path::{Path, PathBuf};
use std::{env, fs};

#[path = "../guest/agent/static_build.rs"]
mod static_build;

fn main() {
    let root = Path::new(&variable("CARGO_MANIFEST_DIR")).join("..");
    for source in static_build::SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../guest/agent/static_build.rs");
    let folder = PathBuf::from(variable("OUT_DIR"));
    let image = folder.join("agent.bin");
    fs::write(&image, agent(&root, &folder.join("agent")))
        .unwrap_or_else(|error| panic!("{}: {error}", image.display()));
    println!("cargo::rustc-env=VMOON_AGENT_IMAGE={}", image.display());
}

/// The agent for the guests of the host that this is built for, or nothing.
fn agent(root: &Path, folder: &Path) -> Vec<u8> {
    let os = variable("CARGO_CFG_TARGET_OS");
    let Some(guest) = static_build::Guest::of_host(&os, &variable("CARGO_CFG_TARGET_ARCH")) else {
        return Vec::new();
    };
    match guest.build(root, folder) {
        Ok(built) => {
            fs::read(&built).unwrap_or_else(|error| panic!("{}: {error}", built.display()))
        }
        // A Mac without the target for guests still builds all else; whoever boots a Linux guest
        // is told what is missing.
        Err(error) if os == "macos" => {
            println!("cargo::warning={error}");
            Vec::new()
        }
        Err(error) => panic!("{error}"),
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
