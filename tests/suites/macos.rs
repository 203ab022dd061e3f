//! What every backend must do, on Virtualization.framework: the scripts of `tests/macos`, which
//! also hold on other backends.
#![cfg(target_os = "macos")]

use std::time::Duration;

use vmoon_tests::process::{run, vmoon};
use vmoon_tests::skip;

const DEADLINE: Duration = Duration::from_mins(10);

#[test]
fn linux() {
    let works = run(&mut vmoon(["run", "-e", PROBE]), DEADLINE);
    if let Some(missing) = works.stdout.lines().next() {
        return skip::skip("tests/macos/linux.lua", missing);
    }
    works.expect_status(0);
    let ended = run(&mut vmoon(["run", "--backend", "vz", "tests/macos/linux.lua"]), DEADLINE);
    ended.expect_status(0);
    assert!(ended.stdout.ends_with("all cases hold\n"), "{ended}");
}

/// Prints why machines cannot run, if they cannot.
const PROBE: &str = r#"
    local vmoon = require "vmoon"
    for _, backend in ipairs(vmoon.backends()) do
      if backend.name == "vz" and not backend.available then print(backend.reason) end
    end
"#;
