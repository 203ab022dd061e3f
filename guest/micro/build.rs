//! Builds the guest with the C compiler that cargo links with: one translation unit, two assembly
//! files and a linker script become an ELF file.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Instructions that emulating hosts lack stay out (SSE, CET), and so does padding, which such a
/// host would execute.
const FLAGS: &[&str] = &[
    "-std=gnu11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-ffreestanding",
    "-mgeneral-regs-only",
    "-mno-red-zone",
    "-mcmodel=small",
    "-fno-pic",
    "-fno-pie",
    "-fno-stack-protector",
    "-fno-strict-aliasing",
    "-fno-asynchronous-unwind-tables",
    "-fno-tree-loop-distribute-patterns",
    "-fno-align-jumps",
    "-fno-align-labels",
    "-fno-align-loops",
    "-fcf-protection=none",
    "-nostdlib",
    "-static",
    "-no-pie",
    "-Wl,--build-id=none",
    "-Wl,-z,max-page-size=4096",
    "-Wl,-z,noexecstack",
    "-Wl,-s",
];

const SOURCES: &[&str] = &["micro.c", "entry.S", "interrupts.S"];

fn main() {
    println!("cargo::rerun-if-changed=c");
    println!("cargo::rustc-check-cfg=cfg(micro_image)");
    let variable = |name| env::var(name).unwrap_or_default();
    if variable("CARGO_CFG_TARGET_ARCH") == "x86_64" && variable("CARGO_CFG_TARGET_OS") == "linux" {
        let out = PathBuf::from(variable("OUT_DIR")).join("micro.elf");
        build(&Path::new(&variable("CARGO_MANIFEST_DIR")).join("c"), &out);
        println!("cargo::rustc-cfg=micro_image");
    }
}

fn build(sources: &Path, out: &Path) {
    let compiler = cc::Build::new().no_default_flags(true).cargo_metadata(false).get_compiler();
    let mut command = Command::new(compiler.path());
    command.current_dir(sources).args(FLAGS).arg("-Wl,-T,link.ld").args(SOURCES).arg("-o").arg(out);
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("the C compiler failed on the micro guest: {status}: {command:?}"),
        Err(error) => panic!("no C compiler for the micro guest: {error}: {command:?}"),
    }
}
