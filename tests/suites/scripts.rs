//! Runs every script of `scripts/` on the micro guest, with the KVM at hand.

use std::time::Duration;

use vmoon_tests::process::{run, vmoon};
use vmoon_tests::{project, skip};

const DEADLINE: Duration = Duration::from_mins(3);

/// Runs one script; what it proved is shown when it fails.
#[track_caller]
fn script(name: &str) {
    if let Some(missing) = skip::without_kvm() {
        return skip::skip(&format!("tests/scripts/{name}.lua"), &missing);
    }
    let ended = run(&mut vmoon(["run", &format!("tests/scripts/{name}.lua")]), DEADLINE);
    ended.expect_status(0);
    assert!(ended.stdout.ends_with("all cases hold\n"), "{ended}");
    println!("{ended}");
}

macro_rules! scripts {
    ($($name:ident)*) => {
        $(#[test] fn $name() { script(stringify!($name)); })*

        #[test]
        fn every_script_is_run() {
            let mut known = vec![$(stringify!($name)),*];
            known.sort_unstable();
            let mut found: Vec<String> = std::fs::read_dir(project::root().join("tests/scripts"))
                .expect("the folder is there")
                .map(|entry| entry.expect("it can be listed").path())
                .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
                .collect();
            found.sort_unstable();
            assert_eq!(found, known);
        }
    };
}

scripts! {
    balloon
    close
    console
    device_writes
    disks
    errors
    exec
    faults
    files
    forks
    lifecycle
    many_machines
    restores
    saved
    snapshot_tree
    snapshots
    stress
    tasks
    types
    vsock
    vsock_restore
    waits
}
