//! Input that must be refused with a clear error, at the command line.

use std::time::Duration;

use vmoon_tests::process::{Ended, run, vmoon};
use vmoon_tests::skip;

const DEADLINE: Duration = Duration::from_secs(30);

#[track_caller]
fn run_code(code: &str) -> Ended {
    run(&mut vmoon(["run", "-e", code]), DEADLINE)
}

/// Runs a chunk that raises: exit status 1, the code, a hint, no trace of a host panic.
#[track_caller]
fn refused(code: &str, expected: &[&str]) {
    let ended = run_code(&format!("local vmoon = require 'vmoon'\n{code}"));
    ended.expect_status(1).expect_stderr(expected).expect_stderr(&["help: "]);
    assert!(!ended.stderr.contains("panicked at"), "{ended}");
}

#[test]
fn an_unknown_key_is_underlined_and_the_valid_ones_are_listed() {
    refused(
        "vmoon.boot { cpuz = 2 }",
        &["error[vm.spec]", "cpuz", "cpus", "memory", "vmoon.boot { cpuz = 2 }", "^"],
    );
}

#[test]
fn no_processors_and_too_many() {
    refused("vmoon.boot { cpus = 0 }", &["error[vm.spec]", "cpus"]);
    let ended = run_code("require('vmoon').boot { cpus = 100000 }");
    ended.expect_status(1).expect_stderr(&["100000", "help: "]);
}

#[test]
fn memory_that_is_none() {
    for memory in ["'0'", "'12'", "'banana'", "0", "'900TiB'"] {
        refused(&format!("vmoon.boot {{ memory = {memory} }}"), &["error[vm.spec]", "memory"]);
    }
}

#[test]
fn kernels_that_are_none() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let empty = folder.path().join("empty");
    std::fs::write(&empty, b"").expect("a file can be written");
    let text = folder.path().join("text");
    std::fs::write(&text, "not a kernel\n".repeat(9000)).expect("a file can be written");
    for path in [&empty, &text] {
        let name = path.to_str().expect("the path is text");
        refused(&format!("vmoon.boot {{ kernel = '{name}' }}"), &["error[vm.spec]", name]);
    }
    refused("vmoon.boot { kernel = '/no/such/kernel' }", &["/no/such/kernel"]);
}

/// A real kernel cut short, and a kernel with an initrd that is none: what is wrong is found
/// before the guest starts, or the guest's end is reported; the host goes on either way.
#[cfg(target_os = "linux")]
#[test]
fn a_kernel_cut_short() {
    let installed = vmoon_tests::nested::kernel::Kernel::installed();
    let Some(kernel) = installed else {
        return skip::skip("a kernel cut short", "linux-image-cloud-amd64");
    };
    if let Some(missing) = skip::without_kvm() {
        return skip::skip("a kernel cut short", &missing);
    }
    let bytes = std::fs::read(&kernel.image).expect("the kernel can be read");
    let folder = tempfile::tempdir().expect("a temporary folder");
    for length in [100, 0x300, 20_000, bytes.len() / 2] {
        let path = folder.path().join(format!("cut-{length}"));
        std::fs::write(&path, &bytes[..length]).expect("a file can be written");
        let name = path.to_str().expect("the path is text");
        refused(
            &format!("vmoon.boot {{ kernel = '{name}', timeout = '5s' }}"),
            &["error[vm.spec]", name],
        );
    }
}

#[test]
fn snapshots_deleted_and_foreign() {
    if let Some(missing) = skip::without_kvm() {
        return skip::skip("snapshots deleted and foreign", &missing);
    }
    refused(
        "local vm <close> = vmoon.boot {}\nlocal s = vm:snapshot 'x'\ns:delete()\nvm:restore(s)",
        &["error[snapshot.not_found]", "vm:restore(s)", "^"],
    );
    refused(
        "local a <close> = vmoon.boot {}\nlocal b <close> = vmoon.boot {}\n\
         local s <close> = a:snapshot 'x'\nb:restore(s)",
        &["error[snapshot.foreign]"],
    );
}

#[test]
fn commands_on_machines_that_do_not_run() {
    if let Some(missing) = skip::without_kvm() {
        return skip::skip("commands on machines that do not run", &missing);
    }
    for (prepare, state) in [
        ("vm:pause()", "paused"),
        ("vm:stop()", "stopped"),
        ("pcall(vm.exec, vm, 'panic') vm:wait('crashed', { timeout = '5s' })", "crashed"),
    ] {
        refused(
            &format!("local vm <close> = vmoon.boot {{}}\n{prepare}\nvm:exec 'true'"),
            &["error[vm.state]", state, "running", "vm:exec 'true'"],
        );
    }
}

#[test]
fn a_port_without_a_listener() {
    if let Some(missing) = skip::without_kvm() {
        return skip::skip("a port without a listener", &missing);
    }
    refused(
        "local vm <close> = vmoon.boot {}\nlocal stream <close> = vm:connect(5000)",
        &["error[vsock.refused]", "5000", "vm:connect(5000)", "^"],
    );
}

#[test]
fn two_machines_with_one_cid() {
    refused(
        "local a <close> = vmoon.create { vsock = { cid = 99 } }\n\
         local b <close> = vmoon.create { vsock = { cid = 99 } }",
        &["error[vm.spec]", "99"],
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_guest_that_asks_for_a_kernel_that_is_not_installed_says_what_to_install() {
    let code = "require('vmoon').boot { guest = 'linux' }";
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c"]);
    command.arg(
        "mount -t tmpfs none /boot && mount -t tmpfs none /lib/modules && exec \"$0\" run -e \"$1\"",
    );
    command.arg(vmoon_tests::project::vmoon()).arg(code);
    if !can_unshare() {
        return skip::skip("a kernel that is not installed", "root, for a mount namespace");
    }
    let ended = run(&mut command, DEADLINE);
    if vmoon_tests::nested::probe::runs_stock_linux() || has_qemu() {
        ended.expect_status(1).expect_stderr(&["error[file.not_found]", "linux-image"]);
    } else {
        // Looking for a kernel would be in vain: this comes first.
        ended.expect_status(1).expect_stderr(&["error[backend.unsupported]", "help: "]);
    }
}

/// Whether a Linux guest has a backend where KVM cannot run it.
#[cfg(target_os = "linux")]
fn has_qemu() -> bool {
    std::process::Command::new("qemu-system-x86_64").arg("--version").output().is_ok()
}

#[test]
fn a_full_disk_of_the_host_is_an_error_of_the_guests_and_a_commit_leaves_nothing() {
    if !can_unshare() {
        return skip::skip("a full disk of the host", "root, for a mount namespace");
    }
    let code = r#"
        local vmoon = require "vmoon"
        local image <const> = "/mnt/disk.img"
        local file <close> = assert(io.open(image, "wb"))
        file:seek("set", (1 << 20) - 1)
        file:write "\0"
        file:flush()
        local vm <close> = vmoon.boot { disks = { { path = image, mode = "direct" } } }
        local data = ("ab"):rep(4096)
        local failed
        for sector = 0, 2040, 8 do
            local result = vm:exec(("blk write %d %s"):format(sector, data))
            if not result.ok then failed = result break end
        end
        assert(failed and failed.stderr:find "the device reported an error", "no error")
        local said = vm:info().devices[#vm:info().devices].status
        assert(said:find "1 requests? failed" and said:find "No space left", said)
        vm:pause()
        local ok, err = pcall(vm.commit_disk, vm, 1, "/mnt/copy.img")
        assert(not ok and err.code == "file.io" and err.hint == "free space on the disk", err)
        local names <close> = assert(io.popen "ls -A /mnt")
        assert(names:read "a" == "disk.img\n")
        print "all of it"
    "#;
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c"]);
    command.arg("mount -t tmpfs -o size=256k none /mnt && exec \"$0\" run -e \"$1\"");
    let ended = run(command.arg(vmoon_tests::project::vmoon()).arg(code), DEADLINE);
    ended.expect_status(0);
    assert_eq!(ended.stdout, "all of it\n", "{ended}");
}

fn can_unshare() -> bool {
    std::path::Path::new("/lib/modules").is_dir()
        && std::process::Command::new("unshare")
            .args(["--mount", "true"])
            .stderr(std::process::Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

#[test]
fn kvm_absent_or_unreadable_is_exit_status_3_with_what_to_do() {
    if !can_unshare() {
        return skip::skip("/dev/kvm absent", "root, for a mount namespace");
    }
    // Masked by a file that is no device, then by an empty /dev in which there is nothing.
    for prepare in
        ["mount --bind /dev/null /dev/kvm", "mkdir -p /dev/shm && mount -t tmpfs none /dev"]
    {
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "--", "sh", "-c"]);
        command.arg(format!("{prepare} && exec \"$0\" run -e \"$1\""));
        command.arg(vmoon_tests::project::vmoon()).arg("require('vmoon').boot { backend = 'kvm' }");
        let ended = run(&mut command, DEADLINE);
        ended.expect_status(3).expect_stderr(&["error[backend.unavailable]", "/dev/kvm", "help: "]);
    }
}

#[test]
fn kvm_without_permission_is_exit_status_3_with_what_to_do() {
    // SAFETY: `geteuid` has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return skip::skip("/dev/kvm without permission", "root, to become nobody");
    }
    // A copy, as the build may be where nobody else may look.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let copy = folder.path().join("vmoon");
    std::fs::copy(vmoon_tests::project::vmoon(), &copy).expect("the binary can be copied");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).expect("permissions can be set");
    let script = "mount -t tmpfs none /mnt && mknod /mnt/kvm c 10 232 && chmod 600 /mnt/kvm && \
        mount --bind /mnt/kvm /dev/kvm && cd / && \
        exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\" run -e \"$1\"";
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c", script]).arg(&copy);
    command.arg("require('vmoon').boot { backend = 'kvm' }");
    let ended = run(&mut command, DEADLINE);
    ended.expect_status(3).expect_stderr(&[
        "error[backend.unavailable]",
        "/dev/kvm",
        "help: ",
        "group",
    ]);
}
