//! Runs every example as a newcomer would.

use std::time::Duration;

use vmoon_tests::process::{Ended, run, vmoon};
use vmoon_tests::{project, skip};

#[track_caller]
fn example(name: &str) -> Option<Ended> {
    if let Some(missing) = skip::without_kvm() {
        skip::skip(&format!("examples/{name}.lua"), &missing);
        return None;
    }
    let mut command = vmoon(["run", &format!("examples/{name}.lua")]);
    let ended = run(&mut command, Duration::from_mins(1));
    ended.expect_status(0);
    Some(ended)
}

#[track_caller]
fn expect_lines(ended: &Ended, lines: &[&str]) {
    let mut rest = ended.stdout.as_str();
    for line in lines {
        let place = rest.find(line).unwrap_or_else(|| panic!("no {line:?} here or later\n{ended}"));
        rest = &rest[place + line.len()..];
    }
}

#[test]
fn snapshot_test_restore() {
    let Some(ended) = example("01-snapshot-test-restore") else { return };
    expect_lines(
        &ended,
        &[
            "booted ",
            "snapshot \"clean\" holds ",
            "passed   a test that paints everything red\n",
            "passed   a test that scribbles over memory\n",
            "failed   a test that panics\n",
            "and the machine is clean again\n",
        ],
    );
}

#[test]
fn vsock_echo() {
    let Some(ended) = example("02-vsock-echo") else { return };
    expect_lines(
        &ended,
        &[
            "the guest echoes: hello, guest\n",
            "the host answers: you said good-morning\n",
            "the guest echoes: round 3\n",
            "and nobody listens on 5999: ",
        ],
    );
}

#[test]
fn balloon() {
    let Some(ended) = example("03-balloon") else { return };
    expect_lines(
        &ended,
        &["at first  left to the guest 128 MiB", "at half   left to the guest  64 MiB"],
    );
    expect_lines(
        &ended,
        &["at full   left to the guest 128 MiB", "restored  left to the guest  64 MiB"],
    );
}

#[test]
fn files() {
    let Some(ended) = example("05-files") else { return };
    expect_lines(
        &ended,
        &[
            "the guest reads: hello from the host\n",
            "then it is:      scribble\n",
            "and again:       hello from the host\n",
            "there and back:  20 bytes\n",
            "not there:       file.not_found: ",
        ],
    );
}

#[test]
fn waits() {
    let Some(ended) = example("06-waits") else { return };
    expect_lines(
        &ended,
        &[
            "port 5000 is listened on\n",
            "the database is ready\n",
            "and so is its fork's\n",
            "port 5432: nobody listens on it, but on 1024, 5000 (vsock)\n",
            "the cache: guest.panic\n",
        ],
    );
}

#[test]
fn faults() {
    let Some(ended) = example("07-faults") else { return };
    expect_lines(
        &ended,
        &[
            "second write: fails\n",
            "mended:       works\n",
            "a cut cable:  vsock.reset\n",
            "the clock:    24 hours ahead\n",
            "a held vCPU:  exec.timeout\n",
            "no power:     crashed\n",
            "restored:     works\n",
            "restored:     hello again\n",
            "restored:     0 hours ahead\n",
        ],
    );
}

/// `04-linux.lua` and `08-debian.lua` need a KVM that runs stock Linux: the suite `nested` runs it.
#[test]
fn every_example_is_run() {
    let mut found: Vec<String> = std::fs::read_dir(project::root().join("examples"))
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be listed").file_name().to_string_lossy().into_owned())
        // The suites `test_command` and `qemu` run the folders of tests.
        .filter(|name| !["ci", "nixos", "tests"].contains(&name.as_str()))
        .collect();
    found.sort_unstable();
    let known = [
        "01-snapshot-test-restore.lua",
        "02-vsock-echo.lua",
        "03-balloon.lua",
        "04-linux.lua",
        "05-files.lua",
        "06-waits.lua",
        "07-faults.lua",
        "08-debian.lua",
    ];
    assert_eq!(found, known);
}
