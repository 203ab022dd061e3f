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
    // Guests are x86-64 Linux; elsewhere there is no compiler for it, and no backend that needs it.
    let target = (variable("CARGO_CFG_TARGET_OS"), variable("CARGO_CFG_TARGET_ARCH"));
    let bytes = if target == ("linux".to_owned(), "x86_64".to_owned()) {
        let built = static_build::build(&root, &folder.join("agent"))
            .unwrap_or_else(|error| panic!("{error}"));
        fs::read(&built).unwrap_or_else(|error| panic!("{}: {error}", built.display()))
    } else {
        Vec::new()
    };
    fs::write(&image, bytes).unwrap_or_else(|error| panic!("{}: {error}", image.display()));
    println!("cargo::rustc-env=VMOON_AGENT_IMAGE={}", image.display());
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
