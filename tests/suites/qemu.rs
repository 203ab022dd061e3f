//! The contract of a backend, on QEMU: every script of `scripts/` and every example as on KVM, and
//! stock Linux, which QEMU runs where the KVM at hand cannot.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::time::{Duration, Instant};

use vmoon_tests::process::{run, start, vmoon};
use vmoon_tests::{debian, project, skip};

const DEADLINE: Duration = Duration::from_mins(5);
const DEBIAN: &str = "examples/08-debian.lua";

/// Runs a script with QEMU; none where there is none.
fn script(path: &str) -> Option<String> {
    if let Some(missing) = skip::without_qemu() {
        skip::skip(path, &missing);
        return None;
    }
    let ended = run(&mut vmoon(["run", "--backend", "qemu", path]), DEADLINE);
    ended.expect_status(0);
    println!("{ended}");
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

#[test]
fn every_script_holds() {
    folder("tests/scripts");
}

#[test]
fn every_example_runs() {
    if let Some(missing) = skip::without_linux() {
        return skip::skip("examples with qemu", &missing);
    }
    folder("examples");
}

/// A distribution from its own disk, which the example wants as an argument.
#[test]
fn debian_runs_without_nesting() {
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
    if let Some(missing) = skip::without_linux() {
        return skip::skip("Linux with qemu", &missing);
    }
    for name in ["linux", "saved"] {
        script(&format!("tests/nested/{name}.lua"));
    }
}

/// The processes whose parent is this one.
fn children(parent: i32) -> Vec<i32> {
    let all = std::fs::read_dir("/proc").expect("procfs").flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let behind_name = stat.rsplit(')').next().unwrap_or_default();
            behind_name.split_whitespace().nth(1) == Some(parent.to_string().as_str())
        })
        .collect()
}

fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    !matches!(state, None | Some("Z" | "X"))
}

fn kill(pid: i32) {
    // SAFETY: the call takes no pointers; the process is one that this test has started.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_mins(2), "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// However vmoon ends, its QEMU ends too, and nothing is left in the folder for temporary files.
#[test]
fn qemu_ends_with_vmoon() {
    if let Some(missing) = skip::without_qemu() {
        return skip::skip("qemu ends with vmoon", &missing);
    }
    let code = "local vm = vmoon.boot { memory = '32MiB' } local s = vm:snapshot 'a' \
                while true do vm:restore(s) vm:succeed 'put a b' end";
    // At different moments of its life: starting, booting, saving, restoring.
    for milliseconds in [0, 30, 90, 200, 450, 900] {
        let temporary = tempfile::tempdir().unwrap();
        let mut command = vmoon(["run", "--backend", "qemu", "-e", code]);
        command.env("TMPDIR", temporary.path());
        let running = start(&mut command);
        let vmoon = running.id();
        let qemu = eventually("QEMU to start", || children(vmoon).first().copied());
        std::thread::sleep(Duration::from_millis(milliseconds));
        kill(vmoon);
        running.wait(DEADLINE);
        eventually("QEMU to end", || (!is_alive(qemu)).then_some(()));
        let left: Vec<_> = std::fs::read_dir(temporary.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// A machine whose QEMU was killed has crashed, says so, and comes back in a new process.
#[test]
fn a_machine_whose_qemu_was_killed_has_crashed_and_comes_back() {
    if let Some(missing) = skip::without_qemu() {
        return skip::skip("a killed qemu", &missing);
    }
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let code = format!(
        "local vm = vmoon.boot {{ memory = '32MiB' }} \
         vm:succeed 'put a b' local s = vm:snapshot 'a' io.open({:?}, 'w'):close() \
         local ok, err = pcall(vm.exec, vm, 'sleep 600000') \
         print(vm.state, err.code, err.message) \
         vm:restore(s) print(vm:succeed 'get a')",
        mark.display().to_string()
    );
    let running = start(&mut vmoon(["run", "--backend", "qemu", "-e", &code]));
    eventually("the snapshot", || mark.exists().then_some(()));
    kill(*children(running.id()).first().expect("QEMU runs"));
    let ended = running.wait(DEADLINE);
    ended.expect_status(0);
    assert!(ended.stdout.starts_with("crashed\tguest.panic\t"), "{ended}");
    assert!(ended.stdout.contains("QEMU ended (signal: 9"), "{ended}");
    assert!(ended.stdout.ends_with("b\n\n"), "{ended}");
}
