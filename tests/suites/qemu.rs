//! The contract of a backend, on QEMU: every script of `scripts/` and every example as on KVM, and
//! stock Linux, which QEMU runs where the KVM at hand cannot.
#![cfg(target_os = "linux")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vmoon_tests::process::{run, vmoon};
use vmoon_tests::{debian, project, skip};

const DEADLINE: Duration = Duration::from_mins(5);
const DEBIAN: &str = "examples/08-debian.lua";

/// Runs a script with QEMU; none where there is none.
fn script(path: &str) -> Option<String> {
    if let Some(missing) = skip::without_qemu() {
        skip::skip(path, &missing);
        return None;
    }
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let mut command = vmoon(["run", "--backend", "qemu", path]);
    let ended = run(command.env("TMPDIR", temporary.path()), DEADLINE);
    ended.expect_status(0);
    println!("{ended}");
    let left: Vec<_> = std::fs::read_dir(temporary.path()).expect("it is there").collect();
    assert!(left.is_empty(), "{path} left {left:?}");
    Some(ended.stdout)
}

/// The scripts of a folder that end with a sum of their cases.
fn folder(path: &str) {
    let mut names: Vec<String> = std::fs::read_dir(project::root().join(path))
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be listed").file_name().to_string_lossy().into_owned())
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "lua"))
        .collect();
    names.sort_unstable();
    assert!(!names.is_empty());
    for name in names {
        if format!("{path}/{name}") == DEBIAN {
            continue;
        }
        let Some(printed) = script(&format!("{path}/{name}")) else { return };
        let sum = path.starts_with("examples") || printed.ends_with("all cases hold\n");
        assert!(sum, "{name}: {printed}");
    }
}

/// One at a time: beside each other they are slow enough for their deadlines.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn every_script_holds() {
    let _alone = alone();
    folder("tests/scripts");
}

#[test]
fn every_example_runs() {
    let _alone = alone();
    if let Some(missing) = skip::without_linux() {
        return skip::skip("examples with qemu", &missing);
    }
    folder("examples");
}

/// A distribution from its own disk, which the example wants as an argument.
#[test]
fn debian_runs_without_nesting() {
    let _alone = alone();
    let missing = skip::without_linux().or_else(debian::missing);
    if let Some(missing) = missing {
        return skip::skip("Debian with qemu", &missing);
    }
    let mut command = vmoon(["run", "--backend", "qemu", DEBIAN]);
    let ended = run(command.arg(debian::image()), DEADLINE);
    ended.expect_status(0);
    assert!(ended.stdout.contains("ls is back, the service is active\n"), "{ended}");
}

/// Tests of the NixOS project as suites: one machine for all, on the same disk.
#[test]
fn suites_after_nixos_hold() {
    let _alone = alone();
    let missing = skip::without_linux().or_else(debian::missing);
    if let Some(missing) = missing {
        return skip::skip("examples/nixos", &missing);
    }
    let mut command = vmoon(["test", "--backend", "qemu", "examples/nixos"]);
    let ended = run(command.env("SERVICES_IMAGE", debian::image()), DEADLINE);
    ended.expect_status(0);
    println!("{ended}");
    assert!(ended.stdout.contains("8 passed, 0 failed, 0 skipped\n"), "{ended}");
}

#[test]
fn linux_scripts_hold_without_nesting() {
    let _alone = alone();
    if let Some(missing) = skip::without_linux() {
        return skip::skip("Linux with qemu", &missing);
    }
    for name in ["linux", "saved"] {
        script(&format!("tests/nested/{name}.lua"));
    }
}

/// As distributions have it; it takes its time.
const WRAPPER: &str = "#!/bin/sh\nsleep 0.2\nPATH=${PATH#*:}\nexec qemu-system-x86_64 \"$@\"\n";
/// What is run on it.
const SCRIPT: &str = "
    local vm <close> = vmoon.boot { memory = '32MiB' }
    local snap <close> = vm:snapshot()
    vm:restore(snap)
    print((vm:succeed('echo wrapped'):gsub('%s', '')))
";

/// Distributions wrap QEMU in a script that sets its environment: what is started becomes QEMU
/// only later.
#[test]
fn a_wrapper_that_becomes_qemu_is_qemu() {
    if let Some(missing) = skip::without_qemu() {
        return skip::skip("a_wrapper_that_becomes_qemu_is_qemu", &missing);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let wrapper = folder.path().join("qemu-system-x86_64");
    std::fs::write(&wrapper, WRAPPER).expect("the wrapper is written");
    std::fs::set_permissions(&wrapper, Permissions::from_mode(0o755)).expect("it may be run");
    let path = std::env::var("PATH").expect("a path");
    let mut command = vmoon(["run", "--backend", "qemu", "-e", SCRIPT]);
    let ended = run(command.env("PATH", format!("{}:{path}", folder.path().display())), DEADLINE);
    ended.expect_status(0);
    assert_eq!(ended.stdout, "wrapped\n", "{ended}");
}
